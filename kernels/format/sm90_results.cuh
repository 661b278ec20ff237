// The end of a fused product on sm_90a: partial sums of row blocks that several blocks of the grid share, and
// the epilogue. For *.cu files only, inside code that is compiled for sm_90a.
#pragma once

#include <cstdint>

#include "kernels/format/sm90_partition.cuh"
#include "kernels/ops/elements.cuh"

namespace sluice::kernels::sm90 {

/// Adds `units` to the arrival of a row block of `all_units`; true for the last one.
__device__ inline bool arrive(std::uint64_t* arrival, std::uint64_t launch, int units, int all_units) {
  constexpr std::uint64_t kMask = (std::uint64_t{1} << kArrivalBits) - 1;
  auto* word = reinterpret_cast<unsigned long long*>(arrival);
  unsigned long long seen = *reinterpret_cast<volatile unsigned long long*>(word);
  while (true) {
    const std::uint64_t before = seen >> kArrivalBits == launch ? seen & kMask : 0;
    const std::uint64_t after = before + static_cast<unsigned>(units);
    const bool last = after == static_cast<unsigned>(all_units);
    const unsigned long long next = last ? 0 : launch << kArrivalBits | after;
    const unsigned long long found = atomicCAS(word, seen, next);
    if (found == seen) return last;
    seen = found;
  }
}

__device__ __forceinline__ float gelu(float x) {
  return 0.5F * x * erfcf(-0.70710678118654752F * x);  // no cancellation in the tail
}
__device__ __forceinline__ float gelu_tanh(float x) {
  return 0.5F * x * (1.0F + tanhf(0.79788456080286536F * (x + 0.044715F * x * x * x)));
}
__device__ __forceinline__ float relu(float x) { return x < 0 ? 0 : x; }  // NaN stays

/// sums = epilogue(sums + bias), of the rows that write_results describes.
template <int kAccumulators>
__device__ void apply_epilogue(const ResultParams& p, int first_row, float (&sums)[kAccumulators]) {
  const int row = first_row + static_cast<int>(threadIdx.x / 32 % 4) * 16 + static_cast<int>(threadIdx.x % 32 / 4);
  if (p.bias != nullptr) {
    float bias[2] = {0, 0};
    for (int half = 0; half < 2; ++half) {
      if (row + 8 * half < p.rows) bias[half] = widen_element(p.bias, p.bf16_bias, row + 8 * half);
    }
#pragma unroll
    for (int i = 0; i < kAccumulators; ++i) sums[i] += bias[i / 2 % 2];
  }
  if (p.epilogue == Epilogue::kRelu) {
#pragma unroll
    for (float& sum : sums) sum = relu(sum);
  } else if (p.epilogue == Epilogue::kGelu) {
#pragma unroll
    for (float& sum : sums) sum = gelu(sum);
  } else if (p.epilogue == Epilogue::kGeluTanh) {
#pragma unroll
    for (float& sum : sums) sum = gelu_tanh(sum);
  }
}

/// Residual and store of rows `row`, row + 1 (only kWidth of them) of the weight, of one token.
template <class T, int kWidth>
__device__ __forceinline__ void store_result(const ResultParams& p, int token, int row, const float (&values)[kWidth]) {
  struct alignas(sizeof(T) * kWidth) Lanes {
    T lane[kWidth];
  };
  struct alignas(sizeof(float) * kWidth) FloatLanes {
    float lane[kWidth];
  };
  const std::int64_t place = token * p.y_stride + row;
  if (p.f32_y) {
    FloatLanes out;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) out.lane[i] = values[i];
    *reinterpret_cast<FloatLanes*>(static_cast<float*>(p.y) + place) = out;
    return;
  }
  Lanes residual{};
  if (p.residual != nullptr) {
    residual = *reinterpret_cast<const Lanes*>(static_cast<const T*>(p.residual) +
                                               token * p.residual_stride + row);
  }
  Lanes out;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    float x = values[i];
    if (p.residual != nullptr) x += widen(residual.lane[i]);
    out.lane[i] = narrow<T>(x);
  }
  *reinterpret_cast<Lanes*>(static_cast<T*>(p.y) + place) = out;
}

/// The sums of 64 rows from `first_row` on by one warpgroup, as wgmma leaves them.
template <class T, int kAccumulators>
__device__ void write_results(const ResultParams& p, int first_row, float (&sums)[kAccumulators]) {
  apply_epilogue(p, first_row, sums);
  const int lane = threadIdx.x % 32;
  const int row = first_row + static_cast<int>(threadIdx.x / 32 % 4) * 16 + lane / 4;
  const int token = lane % 4 * 2;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int r = row + 8 * half;
#pragma unroll
    for (int j = 0; j < kAccumulators / 4; ++j) {
      const float first = sums[4 * j + 2 * half];
      const float second = sums[4 * j + 2 * half + 1];
      const int t = 8 * j + token;
      if (p.pairs) {
        // Lanes of an even and the odd row below it exchange: each has both rows of one token.
        const bool odd = (lane & 4) != 0;
        const float other = __shfl_xor_sync(0xFFFFFFFFU, odd ? first : second, 4);
        const float both[2] = {odd ? other : first, odd ? second : other};
        const int its_token = t + (odd ? 1 : 0);
        if (r < p.rows && its_token < p.num_tokens) store_result<T, 2>(p, its_token, r & ~1, both);
      } else if (r < p.rows) {
        if (t < p.num_tokens) store_result<T, 1>(p, t, r, {first});
        if (t + 1 < p.num_tokens) store_result<T, 1>(p, t + 1, r, {second});
      }
    }
  }
}

}  // namespace sluice::kernels::sm90
