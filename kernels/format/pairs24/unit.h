// A unit of pairs24 as it is stored: its fixed parts, and where a quad's words and metadata are. Layout:
// FORMAT.md. Pure functions, thread-safe.
#pragma once

#include <cstdint>

#include "core/format.h"

namespace sluice::kernels {

inline constexpr int kPairsStrips = 4, kPairsStripRows = 16, kPairsLanes = 32;
/// A step is 32 columns: eight quads, of which a lane holds two in each of its two rows.
inline constexpr int kPairsSteps = 8, kPairsStepCols = 32, kPairsQuadCols = 4, kPairsRegisters = 4;
static_assert(kPairsStrips * kPairsStripRows == kPairsTileRows);
static_assert(kPairsSteps * kPairsStepCols == kPairsTileCols);

/// The fixed part of a strip.
struct PairsStrip {
  std::uint32_t pairs[kPairsLanes];        ///< bit 4 step + register: a pair is stored
  std::uint16_t jumps[kPairsLanes];        ///< PairsJump
  std::uint32_t metadata[kPairsLanes][4];  ///< PairsMetadata
};
static_assert(sizeof(PairsStrip) == 704);

/// Most entries of a strip that a reader takes, one for each lane; the encoder stops earlier. They are stored
/// in groups.
inline constexpr int kPairsMaxEntries = 32, kPairsEntryGroup = 4;
/// Words that so many entries take.
constexpr std::uint32_t pairs_entry_words(std::uint32_t entries) {
  return (entries + kPairsEntryGroup - 1) / kPairsEntryGroup * kPairsEntryGroup;
}
static_assert(kPairsStrips * pairs_entry_words(kPairsMaxEntries) * sizeof(std::uint32_t) <= kPairsMaskBytes,
              "weight_byte_range counts with masks");

/// How what is left of a unit's quads beside their pairs is stored: as words of the lists, which PairsMasks
/// name, or value by value, as entries (PairsEntry). All strips of a unit have the same.
enum class PairsLeft : std::uint8_t { kMasks, kEntries };

/// Where a strip's lists are, and how what is left of its quads is stored.
struct PairsStart {
  static constexpr std::uint32_t kMasks = 0xFFFF;

  std::uint32_t word;     ///< of the lists, in words of four bytes from the start of the unit
  std::uint32_t entries;  ///< of the strip, at most kPairsMaxEntries; or kMasks

  static constexpr PairsStart unpack(std::uint32_t bits) { return {bits & 0xFFFFU, bits >> 16}; }
  constexpr std::uint32_t pack() const { return word | entries << 16; }
  constexpr PairsLeft left() const { return entries == kMasks ? PairsLeft::kMasks : PairsLeft::kEntries; }
};

/// The first bytes of a unit.
struct PairsHead {
  std::uint32_t starts[kPairsStrips];  ///< PairsStart
  PairsStrip strips[kPairsStrips];

  constexpr PairsStart start(int strip) const { return PairsStart::unpack(starts[strip]); }
  constexpr PairsLeft left() const { return start(0).left(); }
  /// Of a unit that has entries, which of the words behind the head is the first one of a strip.
  constexpr std::uint32_t first_entry(int strip) const {
    std::uint32_t words = 0;
    for (int s = 0; s + 1 < kPairsStrips; ++s) words += s < strip ? pairs_entry_words(start(s).entries) : 0;
    return words;
  }
  /// Bytes from the unit's start to where its masks or entries end and its lists may start.
  constexpr std::int64_t lists_begin() const {
    if (left() == PairsLeft::kMasks) return kPairsFixedBytes + kPairsMaskBytes;
    constexpr int kLast = kPairsStrips - 1;
    return kPairsFixedBytes + 4 * std::int64_t{first_entry(kLast) + pairs_entry_words(start(kLast).entries)};
  }
};
static_assert(sizeof(PairsHead) == kPairsFixedBytes);

/// Behind the head of a unit with masks: bit 4 step + register of a lane: something is left. The lists
/// follow.
struct PairsMasks {
  std::uint32_t left[kPairsStrips][kPairsLanes];
};
static_assert(sizeof(PairsMasks) == kPairsMaskBytes);

/// Behind the head of a unit without masks: the entries of each strip, filled up to a multiple of four with
/// zeros. The lists follow.
struct PairsEntry {
  std::uint16_t value;
  int col;  ///< of the unit, 0..255
  int row;  ///< of the strip, 0..15

  static constexpr PairsEntry unpack(std::uint32_t bits) {
    return {static_cast<std::uint16_t>(bits), static_cast<int>(bits >> 16 & 0xFFU),
            static_cast<int>(bits >> 24)};
  }
  constexpr std::uint32_t pack() const {
    return value | static_cast<std::uint32_t>(col) << 16 | static_cast<std::uint32_t>(row) << 24;
  }
};

/// A lane's words stand below one another in one column of 32 words, and from a step on in another one.
inline constexpr int kPairsListStride = kPairsLanes * 4;
struct PairsJump {
  int step;    ///< before which the lane goes to `target`
  int offset;  ///< rows of 32 words from the strip's start to the first word, 0..3
  int target;  ///< word from the strip's start, below 2048

  static constexpr PairsJump unpack(std::uint16_t bits) { return {bits & 7, bits >> 3 & 3, bits >> 5}; }
  constexpr std::uint16_t pack() const {
    return static_cast<std::uint16_t>(step | offset << 3 | target << 5);
  }
};

/// Row of the strip, and quad of the step, of a lane's register.
constexpr int pairs_row(int lane, int reg) { return (lane >> 2) + 8 * (reg & 1); }
constexpr int pairs_quad(int lane, int reg) { return (reg >> 1) * 4 + (lane & 3); }

/// Where the four bits of a quad's metadata are.
struct PairsMetadata {
  int lane, word, bit;

  static constexpr PairsMetadata of(int step, int row, int quad) {
    return {4 * (row & 7) + (quad >> 2) + 2 * (step & 1), step >> 1, 16 * (row >> 3) + 4 * (quad & 3)};
  }
};

}  // namespace sluice::kernels
