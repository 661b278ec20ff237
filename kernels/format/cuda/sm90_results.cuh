// The end of a fused product on sm_90a: the epilogue. For *.cu files only, inside code that is compiled for
// sm_90a.
#pragma once

#include <cstdint>

#include "kernels/format/cuda/result_pairs.cuh"
#include "kernels/format/cuda/sm90_partition.cuh"
#include "kernels/ops/activate.cuh"
#include "kernels/ops/elements.cuh"

namespace sluice::kernels::sm90 {

__device__ inline float bias_of(const ResultParams& p, int row) {
  return p.bias != nullptr && row < p.rows ? widen_element(p.bias, p.bf16_bias, row) : 0;
}

/// Residual and store of rows `row`, row + 1 (only kWidth of them) of the weight, of one token.
template <class T, int kWidth>
__device__ __forceinline__ void store_result(const ResultParams& p, int token, int row,
                                             const float (&values)[kWidth]) {
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
    residual =
        *reinterpret_cast<const Lanes*>(static_cast<const T*>(p.residual) + token * p.residual_stride + row);
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

/// Both rows, or those that exist.
template <class T>
__device__ __forceinline__ void store_pair(const ResultParams& p, int token, int row, float first,
                                           float second) {
  if (token >= p.num_tokens) return;
  if (p.pairs) {
    if (row < p.rows) store_result<T, 2>(p, token, row, {first, second});
  } else {
    if (row < p.rows) store_result<T, 1>(p, token, row, {first});
    if (row + 1 < p.rows) store_result<T, 1>(p, token, row + 1, {second});
  }
}

/// Finishes four sums of thread `thread` of consumer warpgroup `warpgroup`: number `vector` of its fours. All
/// lanes of a warp have the same row block, warpgroup and vector.
template <class T, class S>
__device__ __forceinline__ void write_sums(const ResultParams& p, int row_block, int warpgroup, int vector,
                                           int thread, const float4& sums) {
  const int lane = thread % 32;
  const int warp = thread / 32;
  const int part = vector * 4 / S::kPartSums;
  const int eight = vector * 4 % S::kPartSums / 4;  // of the columns of the product
  const auto finished = [&](float sum, float bias) { return activate_sum(p.epilogue, sum + bias); };
  if constexpr (S::kTokensFirst) {
    const int row = row_block * kUnitRows + part * 128 + eight * 8 + lane % 4 * 2;
    const int token = warpgroup * 64 + warp * 16 + lane / 4;
    const float bias[2] = {bias_of(p, row), bias_of(p, row + 1)};
    store_pair<T>(p, token, row, finished(sums.x, bias[0]), finished(sums.y, bias[1]));
    store_pair<T>(p, token + 8, row, finished(sums.z, bias[0]), finished(sums.w, bias[1]));
  } else {
    const int row =
        row_block * kUnitRows + (S::kWarpProducts ? warp * 64 + part * 16 : part * 64 + warp * 16) + lane / 4;
    const float bias[2] = {bias_of(p, row), bias_of(p, row + 8)};
    const float values[4] = {finished(sums.x, bias[0]), finished(sums.y, bias[0]), finished(sums.z, bias[1]),
                             finished(sums.w, bias[1])};
    const bool odd = (lane & 4) != 0;
    const int token = eight * 8 + lane % 4 * 2 + (odd ? 1 : 0);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float2 rows = exchange_rows(odd, values[2 * half], values[2 * half + 1]);
      store_pair<T>(p, token, (row & ~1) + 8 * half, rows.x, rows.y);
    }
  }
}

}  // namespace sluice::kernels::sm90
