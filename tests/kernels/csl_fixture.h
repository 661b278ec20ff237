// What the tests of the sparse formats share: a matrix in its stored format, and the words of its tiles.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <vector>

#include "kernels/format/format.h"
#include "kernels/format/tile_table.h"

namespace sluice::kernels::testing {

struct StoredMatrix {
  TensorSpec spec;
  WeightFormat format;
  std::vector<std::byte> bytes;

  static StoredMatrix encode(WeightFormat format, std::int64_t rows, std::int64_t cols,
                             std::span<const std::uint16_t> values) {
    const TensorSpec spec{"decoder.layers.3.fc2.weight", 4, rows, cols, false, SplitRule::kCols};
    return {spec, format, encode_matrix(spec, format, values)};
  }
  WeightView view() const { return {format, bytes, spec.rows, spec.cols}; }
  void check() const { codec_of(format.encoding).check(view(), spec.name); }
  std::vector<std::uint16_t> expand(std::int64_t first_row, std::int64_t num_rows) const {
    std::vector<std::uint16_t> values(static_cast<std::size_t>(num_rows * spec.cols), 0xDEADU);
    codec_of(format.encoding).expand(view(), first_row, num_rows, values);
    return values;
  }
  std::vector<std::uint16_t> expand() const { return expand(0, spec.rows); }
};

/// What comes back of values that were stored without loss.
inline std::vector<std::uint16_t> without_negative_zeros(std::vector<std::uint16_t> values) {
  std::replace(values.begin(), values.end(), std::uint16_t{0x8000U}, std::uint16_t{0});
  return values;
}

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
