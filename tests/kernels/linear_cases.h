// Cases of linear, for the tests of every device.
#pragma once

#include <cstdint>

#include "kernels/format/weight_view.h"
#include "kernels/ops/linear.h"

namespace sluice::kernels::testing {

struct LinearCase {
  const char* name;
  std::int64_t m, n, k;
  WeightFormat format = WeightFormat::kDenseF16;
  bool bias = false;
  Epilogue epilogue = Epilogue::kNone;
  bool residual = false;
  std::int64_t padding = 0;  // between rows of x, residual and y
};

inline constexpr WeightFormat kF16 = WeightFormat::kDenseF16;
inline constexpr WeightFormat kBF16 = WeightFormat::kDenseBF16;

// Edges of the tiles (2..4 rows, 2..8 features), of the blocks (64 rows, 48 features, 1024 of k) and of
// vectors of the CPU.
inline const LinearCase kLinearCases[] = {
    {"one", 1, 1, 1},
    {"one_row", 1, 61, 133, kF16, true},
    {"one_row_bf16", 1, 48, 64, kBF16, true, Epilogue::kRelu},
    {"two_rows", 2, 50, 17, kF16, true, Epilogue::kNone, true, 3},
    {"three_rows", 3, 97, 40, kBF16, false, Epilogue::kGelu},
    {"four_rows", 4, 49, 31, kF16, true, Epilogue::kGeluTanh, true},
    {"five_rows", 5, 7, 16, kF16, true, Epilogue::kRelu, true, 1},
    {"few_rows", 16, 55, 530, kF16, true},
    {"many_rows", 17, 55, 530, kBF16, true},
    {"row_block", 64, 48, 32},
    {"row_block_and_one", 65, 13, 47, kBF16, true, Epilogue::kGelu, true, 5},
    {"seventy_rows", 70, 100, 80, kF16, true, Epilogue::kRelu, true},
    {"chunk", 6, 10, 1024, kF16},
    {"chunk_and_one", 9, 10, 1025, kF16, true},
    {"two_chunks_and_some", 7, 5, 2100, kBF16, false, Epilogue::kNone, true},
    {"row_blocks_apart", 600, 3, 8, kF16, true},
    {"aligned", 64, 256, 512, kF16, true, Epilogue::kRelu},
    {"aligned_residual", 32, 128, 256, kBF16, true, Epilogue::kNone, true},
    {"aligned_gelu", 24, 136, 64, kF16, true, Epilogue::kGelu, true, 8},
    {"aligned_row", 1, 768, 1024, kF16, true},
    {"no_rows", 0, 16, 16, kF16, true},
};

}  // namespace sluice::kernels::testing
