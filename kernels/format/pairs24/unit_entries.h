// What is left of a strip of pairs24 beside its pairs, as entries, where it is little. Not thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/format/pairs24/unit.h"

namespace sluice::kernels {

/// A unit has entries if no strip needs more than these, else masks. Masks take as much as 32 entries of each
/// strip, and each quad's test of them its time.
inline constexpr int kPairsChosenEntries = 16;
static_assert(kPairsChosenEntries <= kPairsMaxEntries);

class StripEntries {
 public:
  void clear() { num_quads_ = 0; }
  /// What is left of a quad: columns 0 and 1 (high half). Zero if nothing is.
  void add(std::uint32_t left, int lane, int step, int reg) {
    quads_[num_quads_] = {left,
                          static_cast<std::uint32_t>((lane * kPairsSteps + step) * kPairsRegisters + reg)};
    num_quads_ += left != 0 ? 1 : 0;
  }
  /// A strip of which so many quads have something left has too many entries, for each has one at least.
  static constexpr bool are_too_many_quads(int quads) { return quads > kPairsChosenEntries; }
  /// To be asked for each lane, for not more than what one lane adds has room.
  bool has_too_many_quads() const { return are_too_many_quads(static_cast<int>(num_quads_)); }

  /// Makes entries of all quads. False if there are too many.
  bool finish();
  std::uint32_t count() const { return count_; }
  /// Writes them, filled up as they are stored; returns where they end.
  std::byte* write(std::byte* out) const;

 private:
  struct Quad {
    std::uint32_t left, place;
  };

  std::uint32_t num_quads_ = 0, count_ = 0;
  std::array<std::uint32_t, kPairsChosenEntries> entries_;
  Quad quads_[kPairsChosenEntries + kPairsSteps * kPairsRegisters + 1];  // one more is scratch
};

}  // namespace sluice::kernels
