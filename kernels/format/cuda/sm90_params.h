// The parameters of a fused product on sm_90a, LinearArgs lowered to raw pointers. Plain data.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/format/cuda/exchange.h"
#include "kernels/ops/linear.h"

namespace sluice::kernels::sm90 {

/// What a block of the grid works on at a time.
inline constexpr int kUnitRows = 256, kUnitCols = 64;
/// Blocks of a grid, at most.
inline constexpr int kMaxBlocks = 256;
/// Rows of x of one launch, at most.
inline constexpr int kMaxTokens = 128;

/// The weight, as kernels read it. Offsets in `table` count 16 bytes.
struct StoredTiles {
  const std::byte* tiles;
  const std::uint32_t* table;
  int num_tiles, tiles_per_row;  ///< as stored; tiles_per_row is also the number of units in 256 rows
  int num_units;
};

/// What becomes of the sums: y = epilogue(sum + bias) + residual.
struct ResultParams {
  const void *bias, *residual;  ///< null: none
  void* y;
  std::int64_t residual_stride, y_stride;
  int rows, num_tokens;  ///< of the weight; of y
  Epilogue epilogue;
  bool bf16_bias, f32_y;
  bool pairs;  ///< two neighbours of a row of y, and of the residual, are one aligned word; `rows` is even
};

struct ProductParams {
  StoredTiles stored;
  ResultParams result;
  fused::Exchange exchange;  ///< a counter for each row block, of its units whose sums are there
};

}  // namespace sluice::kernels::sm90
