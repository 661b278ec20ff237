// What the fused products on sm_90a share on the host: which arguments they take, memory, parameters.
// Thread-safe.
#pragma once

#include <algorithm>
#include <bit>

#include <cuda.h>

#include "kernels/format/cuda/fused_cuda.h"
#include "kernels/format/cuda/sm90_params.h"

namespace sluice::kernels::sm90 {

/// As many rows of x as a launch for `tokens` of them computes, from 1 on: a power of two, at least 8.
constexpr std::int64_t rows_of_launch(std::int64_t tokens) {
  return std::max(std::int64_t{8},
                  static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(tokens))));
}
/// Shapes, types and alignments; the format apart.
bool can_run(const LinearArgs& args);
FusedMemoryBytes memory_bytes(WeightFormat format, std::int64_t weight_rows, std::int64_t weight_cols,
                              std::int64_t rows);
/// The parameters of a launch and the tensor map of x for kTokens rows at a time. Throws Error{kDevice}.
ProductParams lower(const LinearArgs& args, const FusedMemory& memory);
CUtensorMap map_activations(const ConstMatrixView& x, int tokens);
/// Of a matrix of bytes in blocks of rows, for copies of 128 bytes of 128 rows with the 128-byte swizzle;
/// zeros beyond its ends. Address and distances are multiples of 16. Throws Error{kDevice}.
struct ByteBlocks {
  const std::byte* data;
  std::int64_t row_bytes, rows, blocks, block_bytes;
};
CUtensorMap map_byte_blocks(const ByteBlocks& bytes);
int num_multiprocessors();

}  // namespace sluice::kernels::sm90
