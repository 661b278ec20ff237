// The words of a strip of pairs24, lane by lane, before its lists have a place. Pure functions, thread-safe.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/format/pairs24/unit.h"

namespace sluice::kernels {

/// Most words of a lane: a pair and what is left of each of its quads.
inline constexpr int kPairsMaxWords = kPairsSteps * kPairsRegisters * 2;

struct StripWords {
  struct Lane {
    std::array<std::uint32_t, kPairsMaxWords + 1> words;  ///< in the order of reading; one more is scratch
    std::array<std::uint8_t, kPairsSteps + 1> ahead;      ///< words ahead of each step, and all of them

    int count() const { return ahead[kPairsSteps]; }
  };
  std::array<Lane, kPairsLanes> lanes;
  int count = 0;  ///< words of all lanes
};

/// The words of 16 rows of 256 values, `stride` apart, and the strip's fixed part but for the jumps. Negative
/// zeros count as zeros.
void split_strip(const std::uint16_t* values, std::int64_t stride, StripWords& words, PairsStrip& fixed);

}  // namespace sluice::kernels
