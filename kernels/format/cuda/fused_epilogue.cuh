// What fused products share once their sums are in registers: stores of finished values, and the sum of the
// parts of a tile whose columns several thread blocks divide (stream-K). For *.cu files only.
#pragma once

#include <cstdint>

#include "kernels/format/cuda/exchange.h"
#include "kernels/format/cuda/result_pairs.cuh"
#include "kernels/format/cuda/result_pairs.h"
#include "kernels/ops/activate.cuh"
#include "kernels/ops/elements.cuh"

namespace sluice::kernels::fused {

/// Where y goes and what is done to it on the way: LinearArgs lowered to raw pointers.
struct Output {
  const void *bias, *residual;  // null: none
  void* y;
  std::int64_t residual_stride, y_stride;
  std::int32_t features, tokens;
  Epilogue epilogue;
  bool bf16_bias;
  bool in_pairs;  // of 16-bit features, of the bias too: one aligned word each
  DType dtype;    // of y and residual
};

inline Output lower_output(const LinearArgs& args) {
  return {.bias = args.bias.data,
          .residual = args.residual.data,
          .y = args.y.data,
          .residual_stride = args.residual.stride,
          .y_stride = args.y.stride,
          .features = static_cast<std::int32_t>(args.weight.rows),
          .tokens = static_cast<std::int32_t>(args.x.rows),
          .epilogue = args.epilogue,
          .bf16_bias = args.bias.dtype == DType::kBF16,
          .in_pairs = args.y.dtype != DType::kF32 && has_result_pairs(args) &&
                      reinterpret_cast<std::uintptr_t>(args.bias.data) % 4 == 0,
          .dtype = args.y.dtype};
}

/// y[token, feature] of a whole sum; nothing for what is outside of y.
__device__ inline void store_output(const Output& out, std::int32_t feature, std::int32_t token, float sum) {
  if (feature >= out.features || token >= out.tokens) return;
  if (out.bias != nullptr) sum += widen_element(out.bias, out.bf16_bias, feature);
  sum = activate_sum(out.epilogue, sum);
  if (out.residual != nullptr)
    sum += widen_element(out.residual, out.dtype == DType::kBF16, token * out.residual_stride + feature);
  const std::int64_t at = token * out.y_stride + feature;
  if (out.dtype == DType::kF32) {
    static_cast<float*>(out.y)[at] = sum;
  } else if (out.dtype == DType::kBF16) {
    static_cast<__nv_bfloat16*>(out.y)[at] = narrow<__nv_bfloat16>(sum);
  } else {
    static_cast<__half*>(out.y)[at] = narrow<__half>(sum);
  }
}

/// Units of work, `per_tile` for each tile, cut into `blocks` runs: of base + 1 units for the first `extra`
/// of them, of base for the others. A thread block has one run. What lies where depends on these numbers
/// alone, so neither do the sums on anything else.
struct StreamK {
  std::int32_t base, extra, per_tile, blocks;

  __host__ __device__ std::int32_t units() const { return base * blocks + extra; }
  __host__ __device__ std::int32_t first_unit(std::int32_t block) const {
    return block * base + (block < extra ? block : extra);
  }
  __host__ __device__ std::int32_t block_of(std::int32_t unit) const {
    const std::int32_t longer = extra * (base + 1);
    return unit < longer ? unit / (base + 1) : extra + (unit - longer) / base;
  }
  /// Which of its two places for partial sums a run uses for a tile that starts at `unit`: of the tiles that
  /// it has not alone, it finishes at most one and starts at most one.
  __host__ __device__ std::int32_t place(std::int32_t block, std::int32_t unit) const {
    return 2 * block + (first_unit(block) < unit ? 1 : 0);
  }
};

/// Whether any lane has `is`, for a branch of the whole warp. A vote tells the compiler that the warp stays
/// one, and that keeps the cursors of a loop around it in uniform registers; a loop without such cursors gets
/// worse by it (`bitmap`, 16 tokens: 108 bytes spilled instead of none).
template <bool kByVotes>
__device__ __forceinline__ bool of_warp(bool is) {
  if constexpr (kByVotes) return __any_sync(0xFFFFFFFFU, is);
  return __reduce_or_sync(0xFFFFFFFFU, is ? 1U : 0U) != 0;
}

/// Keeps fragments of fp32 sums, kVectors float4 a lane, for a warp of another run with the same lanes.
template <int kVectors>
__device__ void keep_partial(float4* place, int lane, const float4 (&sums)[kVectors]) {
#pragma unroll
  for (int v = 0; v < kVectors; ++v) __stcg(place + v * 32 + lane, sums[v]);
}

/// Adds to a counter that starts at zero; true for the one who makes it `all`, and it is zero again. What the
/// others wrote ahead of this, they or those they met at a barrier, is visible to that one.
__device__ __forceinline__ bool count_to(unsigned* counter, unsigned by, unsigned all) {
  unsigned before;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;"
               : "=r"(before)
               : "l"(counter), "r"(by)
               : "memory");
  const bool is_last = before + by == all;
  if (is_last) *counter = 0;
  return is_last;
}

/// True in the last of `count` warps that arrive at a counter.
template <bool kByVotes>
__device__ __forceinline__ bool arrive_last(unsigned* counter, int lane, unsigned count) {
  __syncwarp();
  return of_warp<kByVotes>(lane == 0 && count_to(counter, 1, count));
}

/// The sums of what runs [first, last] have kept in their places, in this order. A lane has kLoads loads in
/// flight, or those of one run (of 8 vectors of two) where they are more.
template <int kLoads, int kVectors, class Place>
__device__ __forceinline__ void add_partials(int first, int last, int lane, const Place& place,
                                             float4 (&sums)[kVectors]) {
  // Runs at once, as many as there are: a loop unrolled by four or eight would take most of them one by one.
  // Of 8 vectors the loop unrolled by two was measured to be faster than two at once.
  constexpr int kAtOnce = kVectors >= 8 ? 1 : kLoads / kVectors;
#pragma unroll
  for (float4& sum : sums) sum = make_float4(0, 0, 0, 0);
#pragma unroll(kVectors == 8 ? 2 : 1)
  for (int run = first; run <= last; run += kAtOnce) {
    float4 parts[kAtOnce][kVectors] = {};
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (run + i > last) continue;
#pragma unroll
      for (int v = 0; v < kVectors; ++v) parts[i][v] = __ldcg(place(run + i) + v * 32 + lane);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
#pragma unroll
      for (int v = 0; v < kVectors; ++v) add_to(sums[v], parts[i][v]);
    }
  }
}

/// Results of the fragments of mma.m16n8k16 in `sums`: kRowTiles x kTokenTiles of 16 rows of W, from `row`
/// (the lane's first) on, and 8 of x. One after the other.
template <int kRowTiles, int kTokenTiles>
__device__ __forceinline__ void store_each(const Output& out, int row, int lane,
                                           float4 (&sums)[kRowTiles * kTokenTiles]) {
  // A loop that is not unrolled, whose body is that of the first 8 tokens: this code runs once for a tile,
  // and to fetch more of it would take longer than the moves.
#pragma unroll 1
  for (int token = lane % 4 * 2; token < kTokenTiles * 8; token += 8) {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      const float4 v = sums[m * kTokenTiles];
      store_output(out, row + m * 16, token, v.x);
      store_output(out, row + m * 16, token + 1, v.y);
      store_output(out, row + m * 16 + 8, token, v.z);
      store_output(out, row + m * 16 + 8, token + 1, v.w);
#pragma unroll
      for (int n = 0; n + 1 < kTokenTiles; ++n) sums[m * kTokenTiles + n] = sums[m * kTokenTiles + n + 1];
    }
  }
}

/// The same in pairs of features (Output::in_pairs). kLaneBit: of exchange_rows.
template <int kRowTiles, int kTokenTiles, int kLaneBit>
__device__ __forceinline__ void store_pairs(const Output& out, int row, int lane,
                                            float4 (&sums)[kRowTiles * kTokenTiles]) {
  constexpr int kAtOnce = kTokenTiles < 4 ? kTokenTiles : 4;  // fragments of as many rows of W
  static_assert(kTokenTiles % kAtOnce == 0);
  const bool is_bf16 = out.dtype == DType::kBF16;
  const bool odd = row % 2 != 0;
  const int feature = row - (odd ? 1 : 0), token = lane % 4 * 2 + (odd ? 1 : 0);
  const auto* const residual = static_cast<const std::uint16_t*>(out.residual);
  auto* const y = static_cast<std::uint16_t*>(out.y);
  float2 bias[kRowTiles][2];
#pragma unroll
  for (int i = 0; i < 2 * kRowTiles; ++i) {
    const int at = feature + i * 8;
    std::uint32_t pair = 0;
    if (out.bias != nullptr && at < out.features)
      pair = *reinterpret_cast<const std::uint32_t*>(static_cast<const std::uint16_t*>(out.bias) + at);
    bias[i / 2][i % 2] = widen_pair(pair, out.bf16_bias);
  }
#pragma unroll 1
  for (int done = 0; done < kTokenTiles; done += kAtOnce) {
    // `body` of each pair: half of a fragment, and where it is in y.
    const auto for_each = [&](const auto& body) {
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
        for (int n = 0; n < kAtOnce; ++n) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const int token_at = token + (done + n) * 8, feature_at = feature + m * 16 + half * 8;
            body(m, n, half, token_at, feature_at, token_at < out.tokens && feature_at < out.features);
          }
        }
      }
    };
    // All loads come before the stores, which the compiler leaves in order: y may be the residual.
    std::uint32_t residuals[kRowTiles][kAtOnce][2] = {};
    if (residual != nullptr) {
      for_each([&](int m, int n, int half, int token_at, int feature_at, bool is_inside) {
        if (is_inside)
          residuals[m][n][half] =
              *reinterpret_cast<const std::uint32_t*>(residual + token_at * out.residual_stride + feature_at);
      });
    }
    for_each([&](int m, int n, int half, int token_at, int feature_at, bool is_inside) {
      const float4& v = sums[m * kTokenTiles + n];
      const float2 sum =
          half == 0 ? exchange_rows<kLaneBit>(odd, v.x, v.y) : exchange_rows<kLaneBit>(odd, v.z, v.w);
      const float2 add = widen_pair(residuals[m][n][half], is_bf16);
      const float low = activate_sum(out.epilogue, sum.x + bias[m][half].x) + add.x;
      const float high = activate_sum(out.epilogue, sum.y + bias[m][half].y) + add.y;
      if (is_inside)
        *reinterpret_cast<std::uint32_t*>(y + token_at * out.y_stride + feature_at) =
            narrow_pair(low, high, is_bf16);
    });
#pragma unroll
    for (int v = 0; v + kAtOnce < kRowTiles * kTokenTiles; ++v) sums[v] = sums[v + kAtOnce];
  }
}

/// The end of a run's part of a tile, for one of its thread block's warps: results where the run has all of
/// the tile; else it keeps its sums for the last warp to come, which adds all in the order of columns and
/// makes the results. `sums` are fragments of mma.m16n8k16:
/// kRowTiles x kTokenTiles of 16 rows of W and 8 of x. `row`: the first of the lane's, whose other rows are
/// 8, 16, ... further on; kLaneBit: by which lanes of an even row and of the next one differ; kLoads: of sums
/// at once, as registers allow. kByVotes: for kernels whose loops have cursors of a warp, see of_warp.
template <bool kByVotes, int kRowTiles, int kTokenTiles, int kLaneBit, int kLoads>
__device__ void finish_fragments(const StreamK& work, const Exchange& exchange, int tile, int warp,
                                 int num_warps, int row, const Output& out,
                                 float4 (&sums)[kRowTiles * kTokenTiles]) {
  constexpr int kVectors = kRowTiles * kTokenTiles;
  const auto run = static_cast<int>(blockIdx.x);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int unit = tile * work.per_tile;
  const int first = work.block_of(unit);
  const int last = work.block_of(unit + work.per_tile - 1);
  if (first != last) {
    const auto place = [&](int block) {
      return exchange.sums + (std::int64_t{work.place(block, unit)} * num_warps + warp) * (kVectors * 32);
    };
    unsigned* const counter = exchange.counters + tile * num_warps + warp;
    keep_partial(place(run), lane, sums);
    if (!arrive_last<kByVotes>(counter, lane, static_cast<unsigned>(last - first + 1))) return;
    __syncwarp();  // what lane 0 may see, all may
    add_partials<kLoads>(first, last, lane, place, sums);
  }
  if (out.in_pairs) {
    store_pairs<kRowTiles, kTokenTiles, kLaneBit>(out, row, lane, sums);
  } else {
    store_each<kRowTiles, kTokenTiles>(out, row, lane, sums);
  }
}

/// The same in a kernel that goes on with another tile: for rows that W has, and the sums are zeros then.
template <class Tile, class Product>
__device__ __forceinline__ void finish_tile(const Product& p, int tile, int warp, int first_row,
                                            float4 (&sums)[Tile::kRowTiles * Tile::kTokenTiles]) {
  if (first_row < p.rows)
    finish_fragments<false, Tile::kRowTiles, Tile::kTokenTiles, 4, 16>(
        p.work, p.exchange, tile, warp, Tile::kWarps, first_row + static_cast<int>(threadIdx.x) % 32 / 4,
        p.out, sums);
#pragma unroll
  for (float4& sum : sums) sum = make_float4(0, 0, 0, 0);
}

}  // namespace sluice::kernels::fused
