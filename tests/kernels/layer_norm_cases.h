// Cases of layer_norm, for the tests of every device.
#pragma once

#include <cstdint>

#include "kernels/format/weight_view.h"

namespace sluice::kernels::testing {

struct LayerNormCase {
  const char* name;
  std::int64_t rows, dim, padding;
  bool gamma, beta;
  WeightFormat format = WeightFormat::kDenseF16;
  float offset = 0;  // added to x: the mean is far from zero
};

inline const LayerNormCase kLayerNormCases[] = {
    {"one_element", 1, 1, 0, true, true},
    {"plain", 3, 64, 0, false, false},
    {"tail", 5, 77, 2, true, true},
    {"bf16", 9, 768, 0, true, true, WeightFormat::kDenseBF16},
    {"only_gamma", 2, 130, 1, true, false},
    {"only_beta", 2, 15, 0, false, true},
    {"large_mean", 4, 512, 0, true, true, WeightFormat::kDenseF16, 1000.0F},
    {"many_rows", 70, 40, 0, true, true},
    // One, two, four, six and eight vectors a thread of the CUDA kernel, and beyond; then rows it cannot
    // align.
    {"cols_2048", 3, 2048, 8, true, true},
    {"cols_4096", 2, 4096, 0, true, true, WeightFormat::kDenseBF16},
    {"cols_7168", 2, 7168, 0, true, true},
    {"cols_12288", 2, 12288, 0, true, true, WeightFormat::kDenseF16, 30.0F},
    {"cols_16384", 2, 16384, 0, false, true},
    {"cols_20000", 2, 20000, 0, true, false},
    {"stride_of_odd_elements", 3, 768, 1, true, true},
    {"no_rows", 0, 40, 0, true, true},
};

}  // namespace sluice::kernels::testing
