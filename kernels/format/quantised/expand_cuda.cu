// Expansion of quantised matrices: a thread makes eight columns of a few rows, with all their codes and
// parameters on the way at once.
#include "kernels/device/cuda/check.h"
#include "kernels/format/cuda/expand_cuda.cuh"
#include "kernels/format/quantised/quantised.h"
#include "kernels/format/quantised/scale.h"

namespace sluice::kernels::detail {
namespace {

constexpr int kThreads = 256;
constexpr int kRows = 4;  // of a thread

struct Params {
  const std::byte* blocks;  // of the whole matrix
  ExpandedRows out;
  std::int64_t matrix_rows, first_row, num_rows;
  std::int64_t row_bytes, block_bytes;  // block: of 128 rows
  std::uint32_t group_cols;
};

/// A chunk of 16 bytes, and of its columns the eight of one part: what each of its eight words has there.
template <int kBits>
struct EightCodes {
  uint4 chunk;
  __device__ std::uint32_t code(int part, int i) const {
    const std::uint32_t two = i < 2 ? chunk.x : i < 4 ? chunk.y : i < 6 ? chunk.z : chunk.w;
    return two >> (i % 2 * 16 + part * kBits) & ((1U << kBits) - 1);
  }
};

template <int kBits, bool kHasMinimum, class T>
__global__ void __launch_bounds__(kThreads) expand_quantised_kernel(const __grid_constant__ Params p) {
  const std::int64_t col = (std::int64_t{blockIdx.y} * kThreads + threadIdx.x) * kVector;
  if (col >= p.out.cols) return;
  constexpr int kParamBytes = kHasMinimum ? 4 : 2, kChunkCols = 128 / kBits;
  const int part = static_cast<int>(col % kChunkCols / kVector);
  const std::int64_t group = static_cast<std::uint32_t>(col) / p.group_cols;
  const std::int64_t first = std::int64_t{blockIdx.x} * kRows;
  EightCodes<kBits> codes[kRows];
  float scale[kRows], minimum[kRows];
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    if (first + i >= p.num_rows) break;
    const std::int64_t row = p.first_row + first + i;
    const std::int64_t block = row / kQuantBlockRows;
    const std::int64_t in_block = row % kQuantBlockRows;
    const std::int64_t left = p.matrix_rows - block * kQuantBlockRows;
    const std::byte* const from = p.blocks + block * p.block_bytes;
    const std::int64_t rows = left < kQuantBlockRows ? left : kQuantBlockRows;
    const std::byte* const params =
        from + rows * p.row_bytes + group * ((rows * kParamBytes + 15) / 16 * 16) + in_block * kParamBytes;
    codes[i].chunk =
        *reinterpret_cast<const uint4*>(from + in_block * p.row_bytes + col / kChunkCols * kQuantChunkBytes);
    scale[i] = widen(*reinterpret_cast<const T*>(params));
    minimum[i] = kHasMinimum ? widen(*reinterpret_cast<const T*>(params + 2)) : 0.0F;
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    if (first + i >= p.num_rows) return;
    float value[kVector];
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      if constexpr (kHasMinimum) {
        value[j] = __fmaf_rn(code_value(codes[i].code(part, j), 0), scale[i], minimum[i]);
      } else {
        value[j] = code_value(codes[i].code(part, j), kBits == 8 ? 128.0F : 8.0F) * scale[i];
      }
    }
    p.out.store(first + i, col,
                {pack<T>(value[0], value[1]), pack<T>(value[2], value[3]), pack<T>(value[4], value[5]),
                 pack<T>(value[6], value[7])});
  }
}

}  // namespace

void expand_quantised_cuda(const ExpandArgs& args, cudaStream_t stream) {
  const WeightView& weight = args.weight;
  const QuantLayout layout = quant_layout(weight.format.encoding, weight.cols);
  const Params p{.blocks = weight.data.data(),
                 .out = expanded_rows(args),
                 .matrix_rows = weight.rows,
                 .first_row = args.first_row,
                 .num_rows = args.num_rows,
                 .row_bytes = layout.row_bytes,
                 .block_bytes = layout.block_bytes(kQuantBlockRows),
                 .group_cols = static_cast<std::uint32_t>(layout.group_cols)};
  constexpr std::int64_t kBlockCols = kThreads * kVector;
  const dim3 blocks(static_cast<unsigned>((args.num_rows + kRows - 1) / kRows),
                    static_cast<unsigned>((weight.cols + kBlockCols - 1) / kBlockCols));
  with_element_type(weight.format.dtype, [&](auto type) {
    using T = decltype(type);
    if (layout.bits == 8) {
      expand_quantised_kernel<8, false, T><<<blocks, kThreads, 0, stream>>>(p);
    } else if (layout.has_minimum) {
      expand_quantised_kernel<4, true, T><<<blocks, kThreads, 0, stream>>>(p);
    } else {
      expand_quantised_kernel<4, false, T><<<blocks, kThreads, 0, stream>>>(p);
    }
  });
  CUDA_CHECK(cudaGetLastError());
}

}  // namespace sluice::kernels::detail
