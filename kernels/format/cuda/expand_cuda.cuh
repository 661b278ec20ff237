// Expansion of stored weights on a CUDA device: what the formats' kernels share. For *.cu files only.
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "kernels/ops/elements.cuh"
#include "kernels/ops/expand.h"

namespace sluice::kernels::detail {

/// One for each family of formats: enqueues the expansion by the contract of kernels/ops/expand.h. `args` are
/// consistent, and the stored bytes have passed their format's check.
void expand_bank_csl_cuda(const ExpandArgs& args, cudaStream_t stream);
void expand_bitmap_cuda(const ExpandArgs& args, cudaStream_t stream);
void expand_pairs24_cuda(const ExpandArgs& args, cudaStream_t stream);
void expand_quantised_cuda(const ExpandArgs& args, cudaStream_t stream);
void expand_tiled_csl_cuda(const ExpandArgs& args, cudaStream_t stream);
/// The one of the weight's format.
void expand_on(const ExpandArgs& args, cudaStream_t stream);

/// Where rows go. Eight columns are stored at once where all rows start at multiples of 16 bytes.
struct ExpandedRows {
  std::uint16_t* data = nullptr;
  std::int64_t cols = 0;
  bool whole_vectors = false;  ///< cols is a multiple of 8

  /// Columns [col, col + 8) of a row, those that the matrix has; col is a multiple of 8.
  __device__ void store(std::int64_t row, std::int64_t col, const uint4& values) const {
    std::uint16_t* const to = data + row * cols + col;
    if (whole_vectors) {
      if (col < cols) *reinterpret_cast<uint4*>(to) = values;
      return;
    }
    const std::uint32_t words[4] = {values.x, values.y, values.z, values.w};
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      if (col + j < cols) to[j] = static_cast<std::uint16_t>(words[j / 2] >> (16 * (j % 2)));
    }
  }
};
inline ExpandedRows expanded_rows(const ExpandArgs& args) {
  return {reinterpret_cast<std::uint16_t*>(args.out.data()), args.weight.cols,
          args.weight.cols % kVector == 0};
}

/// A tile's start in a table of kernels/format/tile_table.h, in bytes.
__device__ inline std::int64_t tile_start(const std::uint32_t* table, std::int64_t tile) {
  return std::int64_t{16} * __ldg(table + tile);
}
/// The table of a weight; 0 <= tile <= num_tiles.
inline const std::uint32_t* tile_table_of(const WeightView& weight) {
  const std::int64_t tiles = num_tiles(weight.format.encoding, weight.rows, weight.cols);
  return reinterpret_cast<const std::uint32_t*>(weight.data.data() + weight.data.size() -
                                                tile_table_bytes(tiles));
}

template <class T>
__device__ std::uint32_t pack(float low, float high);
template <>
__device__ inline std::uint32_t pack<__half>(float low, float high) {
  const __half2 both = __floats2half2_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&both);
}
template <>
__device__ inline std::uint32_t pack<__nv_bfloat16>(float low, float high) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&both);
}

/// A code as a number around `bias`, exactly: it becomes the last bits of 2^23.
__device__ inline float code_value(std::uint32_t code, float bias) {
  return __uint_as_float(0x4B000000U | code) - (8388608.0F + bias);
}

}  // namespace sluice::kernels::detail
