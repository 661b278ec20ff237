// What the tests of the two CSL formats share: the words of their tiles, and what it costs to scatter them.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <vector>

#include "kernels/format/tile_table.h"
#include "tests/kernels/format_support.h"

namespace sluice::kernels::testing {

inline std::vector<std::uint32_t> words_of(std::span<const std::byte> bytes) {
  std::vector<std::uint32_t> words(bytes.size() / sizeof(std::uint32_t));
  std::memcpy(words.data(), bytes.data(), bytes.size());
  return words;
}

/// How a warp stores lists of words to shared memory.
struct StoreCost {
  std::int64_t stores = 0, wavefronts = 0, bound = 0;

  void add(std::span<const std::uint32_t> words) {
    const std::size_t vectors = words.size() / 4;
    std::array<std::int64_t, 32> total{};
    std::int64_t here = 0;
    for (std::size_t first = 0; first < vectors; first += 32) {
      for (std::size_t v = 0; v < 4; ++v) {
        std::array<std::int64_t, 32> in_store{};
        for (std::size_t lane = first; lane < std::min(first + 32, vectors); ++lane) {
          const std::uint32_t bank = (words[lane * 4 + v] >> 18) % 32;
          ++in_store[bank];
          ++total[bank];
        }
        wavefronts += *std::max_element(in_store.begin(), in_store.end());
        ++here;
      }
    }
    stores += here;
    bound += std::max(here, *std::max_element(total.begin(), total.end()));
  }
  double factor() const { return static_cast<double>(wavefronts) / static_cast<double>(stores); }
};

}  // namespace sluice::kernels::testing
