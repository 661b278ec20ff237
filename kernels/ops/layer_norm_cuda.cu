// Tiling. One block per row. The row is read once, into registers, as 16-byte vectors of 16-bit elements (at
// most 8 a thread: 16384 columns at 256 threads); mean and variance are then two sums over registers, so that
// the variance of a row far from zero is that of the differences. Rows that are not aligned, or wider, are
// read once for each sum and once more for the result, from L2.
#include <algorithm>

#include "kernels/device/cuda/cuda_stream.h"
#include "kernels/ops/cuda_kernels.h"
#include "kernels/ops/elements.cuh"

namespace sluice::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kMaxVectors = 8;  // a thread's share of the row

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

/// gamma or beta at eight columns from `i`.
__device__ void load_factors(const void* data, bool is_bf16, std::int64_t i, float (&factors)[kVector]) {
  if (is_bf16) {
    const auto v = load_vector(static_cast<const __nv_bfloat16*>(data) + i);
#pragma unroll
    for (int j = 0; j < kVector; ++j) factors[j] = widen(v.lane[j]);
  } else {
    const auto v = load_vector(static_cast<const __half*>(data) + i);
#pragma unroll
    for (int j = 0; j < kVector; ++j) factors[j] = widen(v.lane[j]);
  }
}

template <class Act, int kVectors>
__global__ void __launch_bounds__(kThreads) layer_norm_kernel(const __grid_constant__ Params<Act> p) {
  __shared__ float partial[2][kWarps];
  const Act* from = p.x + blockIdx.x * p.x_stride;
  Act* to = p.y + blockIdx.x * p.y_stride;
  const auto column = [](int v) {
    return std::int64_t{v * kThreads + static_cast<int>(threadIdx.x)} * kVector;
  };

  // 1. The row, and its mean.
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
    float gamma[kVector];
    float beta[kVector];
#pragma unroll
    for (int j = 0; j < kVector; ++j) gamma[j] = 1, beta[j] = 0;
    if (p.gamma != nullptr) load_factors(p.gamma, p.bf16_vectors, i, gamma);
    if (p.beta != nullptr) load_factors(p.beta, p.bf16_vectors, i, beta);
    Vector<Act> result;
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      result.lane[j] = narrow<Act>((widen(row[v].lane[j]) - mean) * scale * gamma[j] + beta[j]);
    }
    store_vector(to + i, result);
  }
}

/// Any alignment and width. With y = x each element is written by the thread that alone still reads it.
template <class Act>
__global__ void __launch_bounds__(kThreads)
    layer_norm_unaligned_kernel(const __grid_constant__ Params<Act> p) {
  __shared__ float partial[2][kWarps];
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
    kernel<<<static_cast<unsigned>(args.x.rows), kThreads, 0, stream.raw()>>>(p);
  };
  if (!aligned || vectors > kMaxVectors) {
    run(layer_norm_unaligned_kernel<Act>);
  } else if (vectors <= 1) {
    run(layer_norm_kernel<Act, 1>);
  } else if (vectors <= 2) {
    run(layer_norm_kernel<Act, 2>);
  } else if (vectors <= 4) {
    run(layer_norm_kernel<Act, 4>);
  } else if (vectors <= 6) {
    run(layer_norm_kernel<Act, 6>);
  } else {
    run(layer_norm_kernel<Act, kMaxVectors>);
  }
  CUDA_CHECK(cudaGetLastError());
}

}  // namespace

namespace detail {

void layer_norm_cuda(const LayerNormArgs& args, Stream& stream) {
  if (args.x.rows == 0 || args.x.cols == 0) return;
  with_element_type(args.x.dtype, [&](auto act) { launch<decltype(act)>(args, as_cuda(stream)); });
}

}  // namespace detail
}  // namespace sluice::kernels
