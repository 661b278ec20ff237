// What fused products share once their sums are in registers: stores of finished values, and the sum of the
// parts of a tile whose columns several thread blocks divide (stream-K). For *.cu files only.
#pragma once

#include <cstdint>

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
  DType dtype;  // of y and residual
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
          .dtype = args.y.dtype};
}

/// Out of line: fragments are stored by code that is unrolled, which these long functions would multiply.
static __device__ __noinline__ float activate_gelu(Epilogue epilogue, float x) {
  return activate(epilogue, x);
}

/// y[token, feature] of a whole sum; nothing for what is outside of y.
__device__ inline void store_output(const Output& out, std::int32_t feature, std::int32_t token, float sum) {
  if (feature >= out.features || token >= out.tokens) return;
  if (out.bias != nullptr) sum += widen_element(out.bias, out.bf16_bias, feature);
  if (out.epilogue == Epilogue::kRelu) {
    sum = activate(Epilogue::kRelu, sum);
  } else if (out.epilogue != Epilogue::kNone) {
    sum = activate_gelu(out.epilogue, sum);
  }
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

/// Fragments of fp32 sums, kVectors float4 a lane, that one warp keeps for another one with the same lanes.
template <int kVectors>
__device__ void keep_partial(float4* place, int lane, const float4 (&sums)[kVectors]) {
#pragma unroll
  for (int v = 0; v < kVectors; ++v) __stcg(place + v * 32 + lane, sums[v]);
}
template <int kVectors>
__device__ void add_partial(const float4* place, int lane, float4 (&sums)[kVectors]) {
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const float4 part = __ldcg(place + v * 32 + lane);
    sums[v].x += part.x;
    sums[v].y += part.y;
    sums[v].z += part.z;
    sums[v].w += part.w;
  }
}

/// Where warps leave sums of parts of tiles, and the counters that say how many have: a counter for each
/// warp's rows of each tile, zero before and after a product.
struct Exchange {
  float4* sums;
  unsigned* counters;
};

/// True in the last of `count` warps that arrive at a counter which starts at zero, and goes back to it. What
/// they wrote before is visible to the last one.
__device__ inline bool arrive_last(unsigned* counter, int lane, unsigned count) {
  __syncwarp();
  unsigned before = 0;
  if (lane == 0) {
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;" : "=r"(before) : "l"(counter) : "memory");
    if (before == count - 1) *counter = 0;
  }
  before = __shfl_sync(0xFFFFFFFFU, before, 0);
  return before == count - 1;
}

/// The end of a run's part of a tile, for one of its thread block's warps: results, or sums for the warp that
/// arrives last, which adds all parts in the order of columns and makes the results. `sums` are fragments of
/// mma.m16n8k16: kRowTiles x kTokenTiles of 16 rows of W, from `first_row` on, and 8 of x.
template <int kRowTiles, int kTokenTiles>
__device__ void finish_fragments(const StreamK& work, const Exchange& exchange, int tile, int warp,
                                 int num_warps, int first_row, const Output& out,
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
    keep_partial(place(run), lane, sums);
    if (!arrive_last(exchange.counters + tile * num_warps + warp, lane,
                     static_cast<unsigned>(last - first + 1)))
      return;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) sums[v] = make_float4(0, 0, 0, 0);
    constexpr int kAtOnce = kVectors >= 16 ? 1 : 16 / kVectors;  // loads in flight: 16 of 16 bytes a lane
#pragma unroll kAtOnce
    for (int block = first; block <= last; ++block) add_partial(place(block), lane, sums);
  }
  // A loop that is not unrolled, whose body is that of the first 8 tokens: this code runs once for a tile,
  // and to fetch more of it would take longer than the moves.
#pragma unroll 1
  for (int token = lane % 4 * 2; token < kTokenTiles * 8; token += 8) {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      const int row = first_row + m * 16 + lane / 4;
      const float4 v = sums[m * kTokenTiles];
      store_output(out, row, token, v.x);
      store_output(out, row, token + 1, v.y);
      store_output(out, row + 8, token, v.z);
      store_output(out, row + 8, token + 1, v.w);
#pragma unroll
      for (int n = 0; n + 1 < kTokenTiles; ++n) sums[m * kTokenTiles + n] = sums[m * kTokenTiles + n + 1];
    }
  }
}

/// The same in a kernel that goes on with another tile: for rows that W has, and the sums are zeros then.
template <class Tile, class Product>
__device__ __forceinline__ void finish_tile(const Product& p, int tile, int warp, int first_row,
                                            float4 (&sums)[Tile::kRowTiles * Tile::kTokenTiles]) {
  if (first_row < p.rows)
    finish_fragments<Tile::kRowTiles, Tile::kTokenTiles>(p.work, p.exchange, tile, warp, Tile::kWarps,
                                                         first_row, p.out, sums);
#pragma unroll
  for (float4& sum : sums) sum = make_float4(0, 0, 0, 0);
}

}  // namespace sluice::kernels::fused
