#include "kernels/format/pairs24/unit_words.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace sluice::kernels {
namespace {

static_assert(std::endian::native == std::endian::little);

/// What becomes of a quad with these nonzeros. FORMAT.md, "Words".
struct Split {
  std::uint8_t first = 0, second = 0;  ///< bits to the pair's values
  std::uint8_t metadata = 0;
  std::uint32_t left = 0;  ///< mask of columns 0 and 1
};

constexpr std::array<Split, 16> kSplits = [] {
  std::array<Split, 16> splits;
  for (unsigned nonzeros = 0; nonzeros < splits.size(); ++nonzeros) {
    int first = 0;
    int second = nonzeros == 0 ? 1 : 3;
    if (std::popcount(nonzeros) == 1) {
      first = std::min(std::countr_zero(nonzeros), 2);
    } else if (nonzeros != 0) {
      second = std::bit_width(nonzeros) - 1;
      first = std::bit_width(nonzeros ^ 1U << second) - 1;
    }
    const unsigned left = std::popcount(nonzeros) < 2 ? 0 : nonzeros & ~(1U << first | 1U << second);
    splits[nonzeros] = {static_cast<std::uint8_t>(16 * first), static_cast<std::uint8_t>(16 * second),
                        static_cast<std::uint8_t>(first | second << 2),
                        ((left & 1U) != 0 ? 0xFFFFU : 0) | ((left & 2U) != 0 ? 0xFFFF0000U : 0)};
  }
  return splits;
}();

struct Quad {
  std::uint32_t pair, left, metadata;
};

Quad split_quad(const std::uint16_t* values) {
  constexpr std::uint64_t kLowBits = 0x7FFF7FFF7FFF7FFFU;
  std::uint64_t four = 0;
  std::memcpy(&four, values, sizeof(four));
  const std::uint64_t nonzeros = ((four & kLowBits) + kLowBits) >> 15 & 0x0001000100010001U;
  const Split& split = kSplits[nonzeros * 0x0001000200040008U >> 48 & 15U];
  four &= nonzeros * 0xFFFFU;
  const auto first = static_cast<std::uint32_t>(four >> split.first) & 0xFFFFU;
  const auto second = static_cast<std::uint32_t>(four >> split.second) << 16;
  return {first | second, static_cast<std::uint32_t>(four) & split.left, split.metadata};
}

}  // namespace

template <PairsLeft kLeft>
bool split_strip(const std::uint16_t* values, std::int64_t stride, StripWords& words,
                 std::uint32_t (&metadata)[kPairsLanes][4], StripEntries& entries) {
  entries.clear();
  words.count = 0;
  for (int lane = 0; lane < kPairsLanes; ++lane) {
    StripWords::Lane& to = words.lanes[static_cast<std::size_t>(lane)];
    std::uint32_t pairs = 0;
    std::uint32_t left = 0;
    std::uint32_t n = 0;
    const std::uint16_t* upper = values + pairs_row(lane, 0) * stride + pairs_quad(lane, 0) * kPairsQuadCols;
    const std::uint16_t* lower = values + pairs_row(lane, 1) * stride + pairs_quad(lane, 0) * kPairsQuadCols;
    constexpr int kHalf = kPairsStepCols / 2;
    // Lanes 4 g .. 4 g + 3 have the quads of one row: four of its left half, four of its right half.
    std::uint32_t(*row_metadata)[4] = metadata + (lane & ~3);
    const int bit = 4 * (lane & 3);
    for (int step = 0; step < kPairsSteps; ++step) {
      to.ahead[static_cast<std::size_t>(step)] = static_cast<std::uint8_t>(n);
      const int col = step * kPairsStepCols;
      const Quad quads[kPairsRegisters] = {split_quad(upper + col), split_quad(lower + col),
                                           split_quad(upper + col + kHalf), split_quad(lower + col + kHalf)};
      std::uint32_t bits = 0;
      for (int r = 0; r < kPairsRegisters; ++r) {
        to.words[n] = quads[r].pair;
        const std::uint32_t is_stored = quads[r].pair != 0 ? 1 : 0;
        n += is_stored;
        bits |= is_stored << r;
      }
      pairs |= bits << (4 * step);
      for (int half = 0; half < 2; ++half) {
        std::uint32_t& word = row_metadata[half + 2 * (step & 1)][step >> 1];
        const std::uint32_t two = (quads[2 * half].metadata | quads[2 * half + 1].metadata << 16) << bit;
        word = bit == 0 ? two : word | two;
      }
      if ((quads[0].left | quads[1].left | quads[2].left | quads[3].left) == 0) continue;
      for (int r = 0; r < kPairsRegisters; ++r) {
        if constexpr (kLeft == PairsLeft::kMasks) {
          to.words[n] = quads[r].left;
          const std::uint32_t is_stored = quads[r].left != 0 ? 1 : 0;
          n += is_stored;
          left |= is_stored << (4 * step + r);
        } else {
          entries.add(quads[r].left, lane, step, r);
        }
      }
    }
    to.ahead[kPairsSteps] = static_cast<std::uint8_t>(n);
    to.pairs = pairs;
    to.left = left;
    words.count += static_cast<int>(n);
    if constexpr (kLeft == PairsLeft::kEntries) {
      if (entries.has_too_many_quads()) return false;
    }
  }
  return kLeft == PairsLeft::kMasks || entries.finish();
}

template bool split_strip<PairsLeft::kMasks>(const std::uint16_t*, std::int64_t, StripWords&,
                                             std::uint32_t (&)[kPairsLanes][4], StripEntries&);
template bool split_strip<PairsLeft::kEntries>(const std::uint16_t*, std::int64_t, StripWords&,
                                               std::uint32_t (&)[kPairsLanes][4], StripEntries&);

}  // namespace sluice::kernels
