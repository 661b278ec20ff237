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
  std::int64_t row_bytes, param_bytes, block_bytes;  // of 128 rows
  std::uint32_t group_cols;
};

/// As many bytes as eight codes have.
template <int kBits>
struct EightCodes;
template <>
struct EightCodes<8> {
  uint2 words;
  __device__ std::uint32_t code(int i) const { return (i < 4 ? words.x : words.y) >> (8 * (i % 4)) & 255U; }
};
template <>
struct EightCodes<4> {
  std::uint32_t word;
  __device__ std::uint32_t code(int i) const { return word >> (4 * i) & 15U; }
};

template <int kBits, bool kHasMinimum, class T>
__global__ void __launch_bounds__(kThreads) expand_quantised_kernel(const __grid_constant__ Params p) {
  const std::int64_t col = (std::int64_t{blockIdx.y} * kThreads + threadIdx.x) * kVector;
  if (col >= p.out.cols) return;
  constexpr int kParamBytes = kHasMinimum ? 4 : 2;
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
    const std::byte* const params = from + (left < kQuantBlockRows ? left : kQuantBlockRows) * p.row_bytes +
                                    in_block * p.param_bytes + group * kParamBytes;
    codes[i] = *reinterpret_cast<const EightCodes<kBits>*>(from + in_block * p.row_bytes + col * kBits / 8);
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
        value[j] = __fmaf_rn(code_value(codes[i].code(j), 0), scale[i], minimum[i]);
      } else {
        value[j] = code_value(codes[i].code(j), kBits == 8 ? 128.0F : 8.0F) * scale[i];
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
                 .param_bytes = layout.param_bytes,
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
