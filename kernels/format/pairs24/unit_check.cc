#include "kernels/format/pairs24/unit_check.h"

#include <cstdint>
#include <cstring>

#include <fmt/format.h>

namespace sluice::kernels {
namespace {

constexpr std::int64_t kMaxBytes =
    sizeof(PairsHead) + kPairsTileRows * kPairsTileCols * std::int64_t{sizeof(std::uint16_t)};

/// A unit whose starts are good.
class UnitCheck {
 public:
  UnitCheck(std::span<const std::byte> unit, const PairsHead& head, int rows, int cols, DType dtype)
      : unit_(unit),
        head_(head),
        rows_(rows),
        cols_(cols),
        exponent_(dtype == DType::kF16 ? 0x7C00U : 0x7F80U) {}

  std::string check_lane(int strip, int lane) const {
    const PairsStrip& fixed = head_.strips[strip];
    const PairsJump jump = PairsJump::unpack(fixed.jumps[lane]);
    const std::int64_t start = head_.starts[strip];
    std::int64_t at = start + 4 * lane + jump.offset * kPairsListStride;
    for (int step = 0; step < kPairsSteps; ++step) {
      if (step == jump.step) at = start + 4 * std::int64_t{jump.target};
      unsigned taken[kPairsRegisters];  // bit c: column c of the quad
      for (int r = 0; r < kPairsRegisters; ++r) {
        const Quad quad(strip, lane, step, r);
        const unsigned places = quad.metadata(fixed);
        const unsigned first = places & 3;
        const unsigned second = places >> 2;
        if (first >= second)
          return fmt::format("{}: metadata {:#x}, columns {} and {}, do not rise", quad.name(), places, first,
                             second);
        taken[r] = 0;
        if (!quad.is_set(fixed.pairs)) continue;
        if (std::string problem = check_word(quad, at, first, second, taken[r]); !problem.empty())
          return problem;
        at += kPairsListStride;
      }
      for (int r = 0; r < kPairsRegisters; ++r) {
        const Quad quad(strip, lane, step, r);
        if (!quad.is_set(fixed.left)) continue;
        if (taken[r] == 0) return fmt::format("{}: something is left, but no pair is stored", quad.name());
        if (std::string problem = check_word(quad, at, 0, 1, taken[r]); !problem.empty()) return problem;
        at += kPairsListStride;
      }
    }
    return {};
  }

 private:
  struct Quad {
    Quad(int strip_, int lane_, int step_, int reg_) : strip(strip_), lane(lane_), step(step_), reg(reg_) {}

    int row() const { return strip * kPairsStripRows + pairs_row(lane, reg); }
    int col() const { return step * kPairsStepCols + pairs_quad(lane, reg) * kPairsQuadCols; }
    bool is_set(const std::uint32_t* bits) const { return (bits[lane] >> (4 * step + reg) & 1U) != 0; }
    unsigned metadata(const PairsStrip& fixed) const {
      const PairsMetadata at = PairsMetadata::of(step, pairs_row(lane, reg), pairs_quad(lane, reg));
      return fixed.metadata[at.lane][at.word] >> at.bit & 15U;
    }
    std::string name() const {
      return fmt::format("the quad at row {}, column {} (lane {} of strip {})", row(), col(), lane, strip);
    }

    int strip, lane, step, reg;
  };

  /// The word's two values go to columns `first` and `second`, which are added to `taken`.
  std::string check_word(const Quad& quad, std::int64_t at, unsigned first, unsigned second,
                         unsigned& taken) const {
    if (at + std::int64_t{sizeof(std::uint32_t)} > static_cast<std::int64_t>(unit_.size())) {
      return fmt::format("{}: its word at byte {} lies beyond the unit's {} bytes", quad.name(), at,
                         unit_.size());
    }
    std::uint16_t values[2];
    std::memcpy(values, unit_.data() + at, sizeof(values));
    if (values[0] == 0 && values[1] == 0)
      return fmt::format("{}: its word at byte {} is zero", quad.name(), at);
    for (const unsigned i : {0U, 1U}) {
      const std::uint16_t value = values[i];
      if (value == 0) continue;
      const unsigned place = i == 0 ? first : second;
      if ((value & exponent_) == exponent_ || value == 0x8000U) {
        return fmt::format("{}: value {:#06x} at byte {} is {}", quad.name(), value, at + 2 * i,
                           value == 0x8000U ? "a negative zero" : "not finite");
      }
      if (quad.row() >= rows_ || quad.col() + static_cast<int>(place) >= cols_) {
        return fmt::format("{}: a nonzero in column {} lies outside the {} x {} elements here", quad.name(),
                           quad.col() + static_cast<int>(place), rows_, cols_);
      }
      if ((taken >> place & 1U) != 0)
        return fmt::format("{}: two nonzeros in column {}", quad.name(),
                           quad.col() + static_cast<int>(place));
      taken |= 1U << place;
    }
    return {};
  }

  std::span<const std::byte> unit_;
  const PairsHead& head_;
  int rows_, cols_;
  std::uint32_t exponent_;
};

}  // namespace

std::string why_damaged(std::span<const std::byte> unit, int rows, int cols, DType dtype) {
  const auto bytes = static_cast<std::int64_t>(unit.size());
  const auto head_bytes = static_cast<std::int64_t>(sizeof(PairsHead));
  if (bytes < head_bytes || bytes > kMaxBytes)
    return fmt::format("{} bytes instead of {} to {}", bytes, head_bytes, kMaxBytes);
  PairsHead head;
  std::memcpy(&head, unit.data(), sizeof(head));
  for (int s = 0; s < kPairsStrips; ++s) {
    const std::uint32_t start = head.starts[s];
    if (start % sizeof(std::uint32_t) != 0 || start < head_bytes || start > bytes) {
      return fmt::format("the lists of strip {} start at byte {}, which is no word between {} and {}", s,
                         start, head_bytes, bytes);
    }
  }
  const UnitCheck check(unit, head, rows, cols, dtype);
  for (int s = 0; s < kPairsStrips; ++s) {
    for (int lane = 0; lane < kPairsLanes; ++lane) {
      if (std::string problem = check.check_lane(s, lane); !problem.empty()) return problem;
    }
  }
  return {};
}

}  // namespace sluice::kernels
