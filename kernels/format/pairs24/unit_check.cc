#include "kernels/format/pairs24/unit_check.h"

#include <cstdint>
#include <cstring>

#include <fmt/format.h>

namespace sluice::kernels {
namespace {

/// A quad of a unit, as a lane's register in a step.
struct Quad {
  int strip, lane, step, reg;

  /// That of an element; its row is one of the strip.
  static Quad of(int strip, int row, int col) {
    const int quad = col % kPairsStepCols / kPairsQuadCols;
    return {strip, 4 * (row & 7) + (quad & 3), col / kPairsStepCols, (row >> 3) + 2 * (quad >> 2)};
  }

  int row() const { return strip * kPairsStripRows + pairs_row(lane, reg); }
  int col() const { return step * kPairsStepCols + pairs_quad(lane, reg) * kPairsQuadCols; }
  bool is_set(std::uint32_t mask) const { return (mask >> (kPairsRegisters * step + reg) & 1U) != 0; }
  unsigned metadata(const PairsStrip& fixed) const {
    const PairsMetadata at = PairsMetadata::of(step, pairs_row(lane, reg), pairs_quad(lane, reg));
    return fixed.metadata[at.lane][at.word] >> at.bit & 15U;
  }
  std::string name() const {
    return fmt::format("the quad at row {}, column {} (lane {} of strip {})", row(), col(), lane, strip);
  }
};

/// A unit whose starts are good. Messages are empty if nothing is wrong.
class UnitCheck {
 public:
  UnitCheck(std::span<const std::byte> unit, int rows, int cols, DType dtype)
      : unit_(unit), rows_(rows), cols_(cols), exponent_(dtype == DType::kF16 ? 0x7C00U : 0x7F80U) {
    std::memcpy(&head_, unit.data(), sizeof(head_));
    if (head_.left() == PairsLeft::kMasks) std::memcpy(&masks_, unit.data() + sizeof(head_), sizeof(masks_));
  }

  std::string check_lane(int strip, int lane) const {
    const PairsStrip& fixed = head_.strips[strip];
    const PairsJump jump = PairsJump::unpack(fixed.jumps[lane]);
    const std::int64_t start = 4 * std::int64_t{head_.start(strip).word};
    std::int64_t at = start + 4 * lane + jump.offset * kPairsListStride;
    for (int step = 0; step < kPairsSteps; ++step) {
      if (step == jump.step) at = start + 4 * std::int64_t{jump.target};
      for (int r = 0; r < kPairsRegisters; ++r) {
        const Quad quad{strip, lane, step, r};
        const unsigned places = quad.metadata(fixed);
        const unsigned first = places & 3;
        const unsigned second = places >> 2;
        if (first >= second)
          return fmt::format("{}: metadata {:#x}, columns {} and {}, do not rise", quad.name(), places, first,
                             second);
        if (!quad.is_set(fixed.pairs[lane])) continue;
        if (std::string problem = check_word(quad, at, first, second); !problem.empty()) return problem;
        at += kPairsListStride;
      }
      for (int r = 0; r < kPairsRegisters; ++r) {
        const Quad quad{strip, lane, step, r};
        if (!quad.is_set(masks_.left[strip][lane])) continue;
        if (std::string problem = check_pair_of(quad); !problem.empty()) return problem;
        if (std::string problem = check_word(quad, at, 0, 1); !problem.empty()) return problem;
        for (const unsigned i : {0U, 1U}) {
          if (half_at(at, i) == 0) continue;
          if (std::string problem = check_left(quad, i); !problem.empty()) return problem;
        }
        at += kPairsListStride;
      }
    }
    return {};
  }

  /// The entries of a strip, which end in the unit. Metadata are good.
  std::string check_entries(int strip) const {
    const auto count = static_cast<int>(head_.start(strip).entries);
    std::int64_t at = kPairsFixedBytes + 4 * std::int64_t{head_.first_entry(strip)};
    int previous = -1;  // place of the entry ahead
    for (int i = 0; i < count; ++i, at += 4) {
      const std::uint32_t bits = word_at(at);
      const PairsEntry entry = PairsEntry::unpack(bits & 0x0FFFFFFFU);
      const auto name = [&] { return fmt::format("entry {} of strip {} at byte {}", i, strip, at); };
      if (bits >> 28 != 0) return fmt::format("{}: bits 28 to 31 are {:#x}", name(), bits >> 28);
      const int place = entry.col * kPairsStripRows + entry.row;
      if (place <= previous) {
        return fmt::format("{}: row {}, column {} comes not behind the entry ahead", name(), entry.row,
                           entry.col);
      }
      previous = place;
      if (entry.value == 0) return fmt::format("{}: value is zero", name());
      const Quad quad = Quad::of(strip, entry.row, entry.col);
      const auto column = static_cast<unsigned>(entry.col % kPairsQuadCols);
      if (std::string problem = check_value(quad, entry.value, at, column); !problem.empty()) return problem;
      if (std::string problem = check_pair_of(quad); !problem.empty()) return problem;
      if (std::string problem = check_left(quad, column); !problem.empty()) return problem;
    }
    for (int i = count; i < static_cast<int>(pairs_entry_words(static_cast<std::uint32_t>(count)));
         ++i, at += 4) {
      if (word_at(at) != 0)
        return fmt::format("the word at byte {} behind the entries of strip {} is not zero", at, strip);
    }
    return {};
  }

 private:
  std::uint32_t word_at(std::int64_t at) const {
    std::uint32_t word = 0;
    std::memcpy(&word, unit_.data() + at, sizeof(word));
    return word;
  }
  std::uint16_t half_at(std::int64_t at, unsigned half) const {
    return static_cast<std::uint16_t>(word_at(at) >> (16 * half));
  }

  /// A nonzero in this column of the quad.
  std::string check_value(const Quad& quad, std::uint16_t value, std::int64_t at, unsigned column) const {
    if ((value & exponent_) == exponent_ || value == 0x8000U) {
      return fmt::format("{}: value {:#06x} at byte {} is {}", quad.name(), value, at,
                         value == 0x8000U ? "a negative zero" : "not finite");
    }
    const int col = quad.col() + static_cast<int>(column);
    if (quad.row() >= rows_ || col >= cols_) {
      return fmt::format("{}: a nonzero in column {} lies outside the {} x {} elements here", quad.name(),
                         col, rows_, cols_);
    }
    return {};
  }

  /// The word's two values go to columns `first` and `second`.
  std::string check_word(const Quad& quad, std::int64_t at, unsigned first, unsigned second) const {
    if (at + std::int64_t{sizeof(std::uint32_t)} > static_cast<std::int64_t>(unit_.size())) {
      return fmt::format("{}: its word at byte {} lies beyond the unit's {} bytes", quad.name(), at,
                         unit_.size());
    }
    if (word_at(at) == 0) return fmt::format("{}: its word at byte {} is zero", quad.name(), at);
    for (const unsigned i : {0U, 1U}) {
      const std::uint16_t value = half_at(at, i);
      if (value == 0) continue;
      if (std::string problem = check_value(quad, value, at + 2 * i, i == 0 ? first : second);
          !problem.empty())
        return problem;
    }
    return {};
  }

  /// Something is left of the quad.
  std::string check_pair_of(const Quad& quad) const {
    if (quad.is_set(head_.strips[quad.strip].pairs[quad.lane])) return {};
    return fmt::format("{}: something is left, but no pair is stored", quad.name());
  }

  /// In this column. Readers differ in what they do with one that is the pair's as well, even if the pair has
  /// a zero there.
  std::string check_left(const Quad& quad, unsigned column) const {
    const int col = quad.col() + static_cast<int>(column);
    if (column > 1)
      return fmt::format("{}: something is left in column {}, the quad's third or fourth", quad.name(), col);
    const unsigned places = quad.metadata(head_.strips[quad.strip]);
    if (column == (places & 3) || column == places >> 2)
      return fmt::format("{}: something is left in column {}, which is the pair's", quad.name(), col);
    return {};
  }

  std::span<const std::byte> unit_;
  PairsHead head_;
  PairsMasks masks_{};  // none if there are entries
  int rows_, cols_;
  std::uint32_t exponent_;
};

}  // namespace

std::string why_damaged(std::span<const std::byte> unit, int rows, int cols, DType dtype) {
  const auto bytes = static_cast<std::int64_t>(unit.size());
  if (bytes < kPairsFixedBytes || bytes > kPairsMostBytes)
    return fmt::format("{} bytes instead of {} to {}", bytes, kPairsFixedBytes, kPairsMostBytes);
  PairsHead head;
  std::memcpy(&head, unit.data(), sizeof(head));
  const PairsLeft left = head.left();
  const auto name_of = [](PairsLeft kind) { return kind == PairsLeft::kMasks ? "masks" : "entries"; };
  for (int s = 0; s < kPairsStrips; ++s) {
    const PairsStart start = head.start(s);
    if (start.left() != left)
      return fmt::format("strip {} has {}, strip 0 has not", s, name_of(start.left()));
    if (left == PairsLeft::kEntries && start.entries > kPairsMaxEntries) {
      return fmt::format("{} entries of strip {}, at most {} are possible", start.entries, s,
                         kPairsMaxEntries);
    }
  }
  const std::int64_t lists = head.lists_begin();
  if (lists > bytes) return fmt::format("its {} end at byte {} of {}", name_of(left), lists, bytes);
  for (int s = 0; s < kPairsStrips; ++s) {
    const std::int64_t start = 4 * std::int64_t{head.start(s).word};
    if (start < lists || start > bytes) {
      return fmt::format("the lists of strip {} start at byte {}, which is not between {} and {}", s, start,
                         lists, bytes);
    }
  }
  const UnitCheck check(unit, rows, cols, dtype);
  for (int s = 0; s < kPairsStrips; ++s) {
    for (int lane = 0; lane < kPairsLanes; ++lane) {
      if (std::string problem = check.check_lane(s, lane); !problem.empty()) return problem;
    }
    if (left == PairsLeft::kMasks) continue;
    if (std::string problem = check.check_entries(s); !problem.empty()) return problem;
  }
  return {};
}

}  // namespace sluice::kernels
