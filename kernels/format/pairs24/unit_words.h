// The words of a strip of pairs24, lane by lane, before its lists have a place. Pure functions, thread-safe.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/format/pairs24/unit.h"
#include "kernels/format/pairs24/unit_entries.h"

namespace sluice::kernels {

/// Most words of a lane: a pair and what is left of each of its quads.
inline constexpr int kPairsMaxWords = kPairsSteps * kPairsRegisters * 2;

struct StripWords {
  struct Lane {
    std::array<std::uint32_t, kPairsMaxWords + 1> words;  ///< in the order of reading; one more is scratch
    std::array<std::uint8_t, kPairsSteps + 1> ahead;      ///< words ahead of each step, and all of them
    std::uint32_t pairs, left;  ///< bit 4 step + register: a pair is among them, something that is left

    int count() const { return ahead[kPairsSteps]; }
  };
  std::array<Lane, kPairsLanes> lanes;
  int count = 0;  ///< words of all lanes
};

/// The words of 16 rows of 256 values, `stride` apart, the metadata of their quads, and what is left of
/// these: among the words (kMasks) or as entries. Negative zeros count as zeros. False, as soon as it is
/// known, if there are too many entries; then nothing of it holds.
template <PairsLeft kLeft>
bool split_strip(const std::uint16_t* values, std::int64_t stride, StripWords& words,
                 std::uint32_t (&metadata)[kPairsLanes][4], StripEntries& entries);

}  // namespace sluice::kernels
