// Byte shuffles that move the nonzeros among 8 16-bit elements, one for each mask of 8 bits. Constants.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace sluice::kernels::detail {

/// Byte i of the result is the source's byte [i], or zero if that index has its top bit set.
struct alignas(16) ByteShuffle {
  std::array<std::uint8_t, 16> index;
};
using MaskShuffles = std::array<ByteShuffle, 256>;

/// Element j goes to the place that is its rank among the set bits, zeros go behind.
constexpr MaskShuffles compress_shuffles() {
  MaskShuffles shuffles{};
  for (unsigned mask = 0; mask < 256; ++mask) {
    shuffles[mask].index.fill(0x80);
    unsigned rank = 0;
    for (unsigned j = 0; j < 8; ++j) {
      if ((mask >> j & 1U) == 0) continue;
      shuffles[mask].index[2 * rank] = static_cast<std::uint8_t>(2 * j);
      shuffles[mask].index[2 * rank + 1] = static_cast<std::uint8_t>(2 * j + 1);
      ++rank;
    }
  }
  return shuffles;
}

/// The inverse: the element of each set bit's rank goes to its place, zeros between.
constexpr MaskShuffles expand_shuffles() {
  MaskShuffles shuffles{};
  for (unsigned mask = 0; mask < 256; ++mask) {
    shuffles[mask].index.fill(0x80);
    unsigned rank = 0;
    for (unsigned j = 0; j < 8; ++j) {
      if ((mask >> j & 1U) == 0) continue;
      shuffles[mask].index[2 * j] = static_cast<std::uint8_t>(2 * rank);
      shuffles[mask].index[2 * j + 1] = static_cast<std::uint8_t>(2 * rank + 1);
      ++rank;
    }
  }
  return shuffles;
}

inline constexpr MaskShuffles kCompress = compress_shuffles();
inline constexpr MaskShuffles kExpand = expand_shuffles();

}  // namespace sluice::kernels::detail
