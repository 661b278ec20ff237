// Tiling. One block per row. The row is read once, into registers, as 16-byte vectors of 16-bit elements (at
// most 8 a thread: 16384 columns at 256 threads); mean and variance are then two sums over registers, so that
// the variance of a row far from zero is that of the differences. With the few rows of a decode pass latency
// is all that counts, so gamma and beta are read while the kernel ahead still runs; with many rows the
// registers for that would cost more. Rows that are not aligned, or wider, are read once for each sum and
// once more for the result, from L2.
#include <algorithm>

#include "kernels/device/cuda/launch.cuh"
#include "kernels/ops/cuda_kernels.h"
#include "kernels/ops/elements.cuh"

namespace sluice::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kMaxVectors = 8;  // a thread's share of the row
constexpr std::int64_t kFewRows = 256;

template <class Act>
struct Params {
  const Act* x;
  Act* y;
  const void *gamma, *beta;  // null: 1 and 0
  std::int64_t x_stride, y_stride, dim;
  float eps;
  bool bf16_vectors;  // of gamma and beta
};

/// The sum over the block, the same in every thread. `partial` is shared, one float per warp, and used by no
/// one else until the next barrier but one.
__device__ float block_sum(float x, float* partial) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(0xFFFFFFFFU, x, distance);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();
  float sum = 0;
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) sum += partial[warp];
  return sum;
}

/// gamma or beta at eight columns from `i`, as stored, whichever of the two types it has.
__device__ Vector<__half> load_factors(const void* data, std::int64_t i) {
  return load_vector(static_cast<const __half*>(data) + i);
}
__device__ float widen_factor(__half bits, bool is_bf16) {
  return is_bf16 ? widen(__ushort_as_bfloat16(__half_as_ushort(bits))) : widen(bits);
}

template <class Act, int kVectors, bool kFactorsFirst>
__global__ void __launch_bounds__(kThreads) layer_norm_kernel(const __grid_constant__ Params<Act> p) {
  __shared__ float partial[2][kWarps];
  const Act* from = p.x + blockIdx.x * p.x_stride;
  Act* to = p.y + blockIdx.x * p.y_stride;
  const auto column = [](int v) {
    return std::int64_t{v * kThreads + static_cast<int>(threadIdx.x)} * kVector;
  };

  // 1. The row, and its mean.
  Vector<__half> gamma[kVectors];
  Vector<__half> beta[kVectors];
  const auto load_factors_of = [&](int v) {
    if (p.gamma != nullptr) gamma[v] = load_factors(p.gamma, column(v));
    if (p.beta != nullptr) beta[v] = load_factors(p.beta, column(v));
  };
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    if (kFactorsFirst && column(v) < p.dim) load_factors_of(v);
  }
  wait_for_kernels_before();
  let_next_kernel_start();
  Vector<Act> row[kVectors];
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    if (column(v) < p.dim) row[v] = load_vector(from + column(v));
  }
  float sum = 0;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    if (column(v) >= p.dim) continue;
#pragma unroll
    for (int j = 0; j < kVector; ++j) sum += widen(row[v].lane[j]);
  }
  const float count = static_cast<float>(p.dim);
  const float mean = block_sum(sum, partial[0]) / count;

  // 2. The mean of the squared differences.
  float squares = 0;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    if (column(v) >= p.dim) continue;
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      const float difference = widen(row[v].lane[j]) - mean;
      squares += difference * difference;
    }
  }
  const float scale = rsqrtf(block_sum(squares, partial[1]) / count + p.eps);

  // 3. Scale, shift and store.
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const std::int64_t i = column(v);
    if (i >= p.dim) continue;
    if (!kFactorsFirst) load_factors_of(v);
    Vector<Act> result;
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      const float factor = p.gamma != nullptr ? widen_factor(gamma[v].lane[j], p.bf16_vectors) : 1.0F;
      const float shift = p.beta != nullptr ? widen_factor(beta[v].lane[j], p.bf16_vectors) : 0.0F;
      result.lane[j] = narrow<Act>((widen(row[v].lane[j]) - mean) * scale * factor + shift);
    }
    store_vector(to + i, result);
  }
}

/// Any alignment and width. With y = x each element is written by the thread that alone still reads it.
template <class Act>
__global__ void __launch_bounds__(kThreads)
    layer_norm_unaligned_kernel(const __grid_constant__ Params<Act> p) {
  __shared__ float partial[2][kWarps];
  wait_for_kernels_before();
  const Act* from = p.x + blockIdx.x * p.x_stride;
  Act* to = p.y + blockIdx.x * p.y_stride;
  const float count = static_cast<float>(p.dim);
  float sum = 0;
  for (std::int64_t i = threadIdx.x; i < p.dim; i += kThreads) sum += widen(from[i]);
  const float mean = block_sum(sum, partial[0]) / count;
  float squares = 0;
  for (std::int64_t i = threadIdx.x; i < p.dim; i += kThreads) {
    const float difference = widen(from[i]) - mean;
    squares += difference * difference;
  }
  const float scale = rsqrtf(block_sum(squares, partial[1]) / count + p.eps);
  for (std::int64_t i = threadIdx.x; i < p.dim; i += kThreads) {
    const float gamma = p.gamma != nullptr ? widen_element(p.gamma, p.bf16_vectors, i) : 1.0F;
    const float beta = p.beta != nullptr ? widen_element(p.beta, p.bf16_vectors, i) : 0.0F;
    to[i] = narrow<Act>((widen(from[i]) - mean) * scale * gamma + beta);
  }
}

template <class Act>
void launch(const LayerNormArgs& args, CudaStream& stream) {
  const Params<Act> p{.x = reinterpret_cast<const Act*>(args.x.data),
                      .y = reinterpret_cast<Act*>(args.y.data),
                      .gamma = args.gamma.data,
                      .beta = args.beta.data,
                      .x_stride = args.x.stride,
                      .y_stride = args.y.stride,
                      .dim = args.x.cols,
                      .eps = args.eps,
                      .bf16_vectors = (args.gamma ? args.gamma.dtype : args.beta.dtype) == DType::kBF16};
  const bool aligned = p.dim % kVector == 0 && is_vector_aligned(p.x, p.x_stride * 2) &&
                       is_vector_aligned(p.y, p.y_stride * 2) && is_vector_aligned(p.gamma, 0) &&
                       is_vector_aligned(p.beta, 0);
  const std::int64_t vectors = (p.dim / kVector + kThreads - 1) / kThreads;
  const auto run = [&](auto kernel) {
    launch_overlapping(stream, kernel, dim3(static_cast<unsigned>(args.x.rows)), kThreads, 0, p);
  };
  if (!aligned || vectors > kMaxVectors) return run(layer_norm_unaligned_kernel<Act>);
  const auto run_vectors = [&]<int kVectors>() {
    args.x.rows <= kFewRows ? run(layer_norm_kernel<Act, kVectors, true>)
                            : run(layer_norm_kernel<Act, kVectors, false>);
  };
  if (vectors <= 1) {
    run_vectors.template operator()<1>();
  } else if (vectors <= 2) {
    run_vectors.template operator()<2>();
  } else if (vectors <= 4) {
    run_vectors.template operator()<4>();
  } else if (vectors <= 6) {
    run_vectors.template operator()<6>();
  } else {
    run_vectors.template operator()<kMaxVectors>();
  }
}

}  // namespace

namespace detail {

void layer_norm_cuda(const LayerNormArgs& args, Stream& stream) {
  if (args.x.rows == 0 || args.x.cols == 0) return;
  with_element_type(args.x.dtype, [&](auto act) { launch<decltype(act)>(args, as_cuda(stream)); });
}

}  // namespace detail
}  // namespace sluice::kernels
