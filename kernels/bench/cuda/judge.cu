#include <cuda_fp16.h>

#include "kernels/bench/cuda/judge.h"
#include "kernels/device/cuda/check.h"

namespace sluice::kernels {
namespace {

constexpr int kThreads = 256;

unsigned blocks_for(std::int64_t count) {
  const std::int64_t blocks = (count + kThreads - 1) / kThreads;
  return static_cast<unsigned>(blocks < 8192 ? blocks : 8192);
}

__device__ std::uint32_t mixed(std::uint32_t x) {
  x ^= x >> 16;
  x *= 0x7FEB352DU;
  x ^= x >> 15;
  x *= 0x846CA68BU;
  return x ^ (x >> 16);
}

__global__ void fill_kernel(__half* to, std::int64_t count) {
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += step) {
    const auto bits =
        mixed(static_cast<std::uint32_t>(i) + 0x9E3779B9U * static_cast<std::uint32_t>(i >> 32));
    to[i] = __float2half_rn(static_cast<float>(static_cast<int>(bits >> 8) - (1 << 23)) * 0x1p-23F);
  }
}

// Tiling. A block makes 64 x 64 results, a thread 4 x 4 of them; 32 columns of both operands lie in shared
// memory as floats, transposed, so that a thread's four values are one load.
constexpr int kTile = 64, kDepth = 32, kPer = 4, kPitch = kTile + 4;

__global__ void __launch_bounds__(kThreads)
    reference_kernel(const __half* x, const __half* w, float* reference, float* squares, std::int64_t rows,
                     std::int64_t out, std::int64_t in) {
  __shared__ __align__(16) float xs[kDepth][kPitch];
  __shared__ __align__(16) float ws[kDepth][kPitch];
  const std::int64_t m0 = std::int64_t{blockIdx.x} * kTile;
  const std::int64_t n0 = std::int64_t{blockIdx.y} * kTile;
  const int tx = static_cast<int>(threadIdx.x) % 16;
  const int ty = static_cast<int>(threadIdx.x) / 16;
  float sum[kPer][kPer] = {};
  float square[kPer] = {};
  for (std::int64_t k0 = 0; k0 < in; k0 += kDepth) {
    for (int i = static_cast<int>(threadIdx.x); i < kTile * kDepth; i += kThreads) {
      const int r = i / kDepth;
      const int k = i % kDepth;
      const bool inside = k0 + k < in;
      xs[k][r] = inside && n0 + r < rows ? __half2float(x[(n0 + r) * in + k0 + k]) : 0.0F;
      ws[k][r] = inside && m0 + r < out ? __half2float(w[(m0 + r) * in + k0 + k]) : 0.0F;
    }
    __syncthreads();
    for (int k = 0; k < kDepth; ++k) {
      const float4 a = *reinterpret_cast<const float4*>(&ws[k][kPer * tx]);
      const float4 b = *reinterpret_cast<const float4*>(&xs[k][kPer * ty]);
      const float am[kPer] = {a.x, a.y, a.z, a.w};
      const float bn[kPer] = {b.x, b.y, b.z, b.w};
      for (int i = 0; i < kPer; ++i) {
        square[i] = fmaf(am[i], am[i], square[i]);
        for (int j = 0; j < kPer; ++j) sum[j][i] = fmaf(am[i], bn[j], sum[j][i]);
      }
    }
    __syncthreads();
  }
  for (int i = 0; i < kPer; ++i) {
    const std::int64_t m = m0 + kPer * tx + i;
    if (m >= out) continue;
    if (blockIdx.y == 0 && ty == 0) squares[m] = square[i];
    for (int j = 0; j < kPer; ++j) {
      const std::int64_t n = n0 + kPer * ty + j;
      if (n < rows) reference[n * out + m] = sum[j][i];
    }
  }
}

__global__ void judge_kernel(const __half* y, const float* reference, const float* squares, std::int64_t rows,
                             std::int64_t out, float per_deviation, Judgement* judgement) {
  float worst = 0;
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < rows * out; i += step) {
    const float value = __half2float(y[i]);
    const float expected = reference[i];
    const float tolerance = 0x1p-10F * fabsf(expected) + 0x1p-24F + per_deviation * sqrtf(squares[i % out]);
    if (!isfinite(value)) {
      atomicAdd(&judgement->not_finite, 1U);
    } else {
      worst = fmaxf(worst, fabsf(value - expected) / tolerance);
    }
  }
  // Floats of one sign are ordered as their bits.
  if (worst > 0) atomicMax(reinterpret_cast<int*>(&judgement->worst), __float_as_int(worst));
}

__global__ void guard_kernel(const std::uint8_t* guard, std::int64_t bytes, std::uint8_t poison,
                             Judgement* judgement) {
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < bytes; i += step) {
    if (guard[i] != poison) atomicAdd(&judgement->strayed, 1U);
  }
}

__global__ void equal_kernel(const std::uint16_t* values, const std::uint16_t* expected, std::int64_t count,
                             Judgement* judgement) {
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += step) {
    if (values[i] != expected[i]) atomicAdd(&judgement->not_finite, 1U);
  }
}

__global__ void transpose_kernel(const std::uint16_t* from, std::uint16_t* to, std::int64_t rows,
                                 std::int64_t cols) {
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < rows * cols; i += step)
    to[i % cols * rows + i / cols] = from[i];
}

__global__ void spin_kernel(std::uint64_t nanoseconds) {
  std::uint64_t start = 0;
  std::uint64_t now = 0;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
  do {
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  } while (now - start < nanoseconds);
}

}  // namespace

void fill_random_half(void* to, std::int64_t count, cudaStream_t stream) {
  fill_kernel<<<blocks_for(count), kThreads, 0, stream>>>(static_cast<__half*>(to), count);
  CUDA_CHECK(cudaGetLastError());
}

void reference_product(const void* x, const void* w, float* reference, float* squares, std::int64_t rows,
                       std::int64_t out, std::int64_t in, cudaStream_t stream) {
  const dim3 blocks(static_cast<unsigned>((out + kTile - 1) / kTile),
                    static_cast<unsigned>((rows + kTile - 1) / kTile));
  reference_kernel<<<blocks, kThreads, 0, stream>>>(
      static_cast<const __half*>(x), static_cast<const __half*>(w), reference, squares, rows, out, in);
  CUDA_CHECK(cudaGetLastError());
}

void judge_product(const void* y, const float* reference, const float* squares, std::int64_t rows,
                   std::int64_t out, std::int64_t in, Judgement* judgement, cudaStream_t stream) {
  const double steps = static_cast<double>((in + 15) / 16);
  const double per_deviation = steps * 0x1p-23 * 4 * sqrt(kJudgeVariance);
  judge_kernel<<<blocks_for(rows * out), kThreads, 0, stream>>>(static_cast<const __half*>(y), reference,
                                                                squares, rows, out,
                                                                static_cast<float>(per_deviation), judgement);
  CUDA_CHECK(cudaGetLastError());
}

void judge_guard(const void* guard, std::int64_t bytes, std::uint8_t poison, Judgement* judgement,
                 cudaStream_t stream) {
  guard_kernel<<<blocks_for(bytes), kThreads, 0, stream>>>(static_cast<const std::uint8_t*>(guard), bytes,
                                                           poison, judgement);
  CUDA_CHECK(cudaGetLastError());
}

void judge_equal(const void* values, const void* expected, std::int64_t count, Judgement* judgement,
                 cudaStream_t stream) {
  equal_kernel<<<blocks_for(count), kThreads, 0, stream>>>(static_cast<const std::uint16_t*>(values),
                                                           static_cast<const std::uint16_t*>(expected), count,
                                                           judgement);
  CUDA_CHECK(cudaGetLastError());
}

void transpose(const void* from, void* to, std::int64_t rows, std::int64_t cols, cudaStream_t stream) {
  transpose_kernel<<<blocks_for(rows * cols), kThreads, 0, stream>>>(
      static_cast<const std::uint16_t*>(from), static_cast<std::uint16_t*>(to), rows, cols);
  CUDA_CHECK(cudaGetLastError());
}

void spin(double seconds, cudaStream_t stream) {
  spin_kernel<<<1, 1, 0, stream>>>(static_cast<std::uint64_t>(seconds * 1e9));
  CUDA_CHECK(cudaGetLastError());
}

}  // namespace sluice::kernels
