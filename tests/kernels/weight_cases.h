// Matrices that every weight format must hold: shapes off the tiles, random and structured masks.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "core/dtype.h"

namespace sluice::kernels::testing {

enum class Mask : std::uint8_t {
  kRandom,        ///< each element is zero with probability `sparsity`
  kRows,          ///< whole rows are zero
  kColumns,       ///< whole columns are zero
  kColumnPairs,   ///< only columns 4 k and 4 k + 1 hold anything: few banks of shared memory
  kOneTile,       ///< only the elements of rows 128..255, columns 64..127 (or what the shape has of them)
  kDiagonal,      ///< only row mod cols == column
  kLastElement,   ///< only the very last element
  kNegativeZero,  ///< as kRandom, but the zeros are negative
};

struct WeightCase {
  const char* name;
  std::int64_t rows, cols;
  Mask mask = Mask::kRandom;
  double sparsity = 0.5;
};

inline const std::vector<WeightCase>& weight_cases() {
  static const std::vector<WeightCase> cases = {
      {"one_element", 1, 1, Mask::kRandom, 0.0},
      {"one_row", 1, 300, Mask::kRandom, 0.6},
      {"one_column", 300, 1, Mask::kRandom, 0.6},
      {"one_tile", 128, 64, Mask::kRandom, 0.8},
      {"off_the_tiles", 197, 91, Mask::kRandom, 0.7},
      {"just_over", 257, 129, Mask::kRandom, 0.8},
      {"several", 512, 320, Mask::kRandom, 0.8},
      {"full", 256, 192, Mask::kRandom, 0.0},
      {"nearly_full", 256, 192, Mask::kRandom, 0.001},
      {"empty", 300, 200, Mask::kRandom, 1.0},
      {"dense_half", 256, 256, Mask::kRandom, 0.3},
      {"very_sparse", 384, 256, Mask::kRandom, 0.97},
      {"rows", 300, 200, Mask::kRows, 0.5},
      {"columns", 300, 200, Mask::kColumns, 0.5},
      {"column_pairs", 260, 256, Mask::kColumnPairs},
      {"one_full_tile", 384, 256, Mask::kOneTile},
      {"diagonal", 300, 300, Mask::kDiagonal},
      {"last_element", 300, 300, Mask::kLastElement},
      {"negative_zeros", 200, 130, Mask::kNegativeZero, 0.7},
  };
  return cases;
}

/// Row-major values of `dtype` (f16 or bf16), finite; different for every case and seed.
inline std::vector<std::uint16_t> make_weights(const WeightCase& c, DType dtype, std::uint32_t seed = 1) {
  std::mt19937 random(seed * 7919U + static_cast<std::uint32_t>(c.rows * 131 + c.cols));
  std::normal_distribution<float> normal(0.0F, 0.05F);
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  const auto bits = [dtype](float x) { return dtype == DType::kF16 ? to_half(x).bits : to_bfloat16(x).bits; };
  std::vector<bool> row_is_zero, col_is_zero;
  row_is_zero.reserve(static_cast<std::size_t>(c.rows));
  col_is_zero.reserve(static_cast<std::size_t>(c.cols));
  for (std::int64_t r = 0; r < c.rows; ++r) row_is_zero.push_back(uniform(random) < c.sparsity);
  for (std::int64_t k = 0; k < c.cols; ++k) col_is_zero.push_back(uniform(random) < c.sparsity);
  const auto is_zero = [&](std::int64_t r, std::int64_t k) {
    switch (c.mask) {
      case Mask::kRows:
        return static_cast<bool>(row_is_zero[static_cast<std::size_t>(r)]);
      case Mask::kColumns:
        return static_cast<bool>(col_is_zero[static_cast<std::size_t>(k)]);
      case Mask::kColumnPairs:
        return k % 4 >= 2;
      case Mask::kOneTile:
        return r / 128 != 1 || k / 64 != 1;
      case Mask::kDiagonal:
        return r % c.cols != k;
      case Mask::kLastElement:
        return r != c.rows - 1 || k != c.cols - 1;
      case Mask::kRandom:
      case Mask::kNegativeZero:
        break;
    }
    return uniform(random) < c.sparsity;
  };
  std::vector<std::uint16_t> values;
  values.reserve(static_cast<std::size_t>(c.rows * c.cols));
  for (std::int64_t r = 0; r < c.rows; ++r) {
    for (std::int64_t k = 0; k < c.cols; ++k) {
      std::uint16_t value = bits(normal(random));
      if ((value & 0x7FFFU) == 0) value = bits(0.05F);  // a drawn zero would not be one of the mask's
      const std::uint16_t zero = c.mask == Mask::kNegativeZero ? 0x8000U : 0U;
      values.push_back(is_zero(r, k) ? zero : value);
    }
  }
  return values;
}

}  // namespace sluice::kernels::testing
