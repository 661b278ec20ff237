// y = epilogue(x W^T + bias) + residual over a quantised W, for up to 64 rows of x, on sm_90a. One persistent
// block a multiprocessor, a ring of units (sm90_tile.cuh) in its shared memory, and no barrier of the block:
//
//   4 or 8 warps   codes --tensor copies--> ring; x, parameters --registers, put in order--> ring
//   2 or 4 groups  codes --decoded in registers--> a of the products of a warpgroup; x is b, in the ring
//
// The grid shares the units (StreamK); sums of a tile that several blocks work on are added in the order of
// columns by whichever warp is last. For *.cu files only.
#pragma once

#include "kernels/format/cuda/sm90_wgmma_registers.cuh"
#include "kernels/format/quantised/sm90_operands.cuh"

namespace sluice::kernels::fused {

/// What a lane takes of half a unit: 16 bytes of codes of rows g and g + 8, and their parameters.
template <class Tile>
struct LaneCodes {
  std::uint32_t codes[2][4], params[2];  // by row

  /// `stored_bytes`: of a row, from this half's first on.
  __device__ __forceinline__ LaneCodes(std::uint32_t codes_at, std::uint32_t params_at, int stored_bytes) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      params[r] = load_shared_4(params_at + r * (8 * Tile::kParams * 4));
      const uint4 v = load_shared_16(codes_at + r * (8 * Tile::kUnitBytes));
      codes[r][0] = v.x;
      codes[r][1] = v.y;
      codes[r][2] = v.z;
      codes[r][3] = v.w;
    }
    if constexpr (Tile::kKind != CodeKind::kNibblesFromMinimum) {
      if (stored_bytes < Tile::kUnitBytes / 2) take_zeros_behind(stored_bytes);
    }
  }

 private:
  /// Behind a row the copies have put bytes 0, which are codes below the least of the format: times its scale
  /// one may be infinite, and times a zero of x no number.
  __device__ __forceinline__ void take_zeros_behind(int stored_bytes) {
    if (static_cast<int>(threadIdx.x) % 4 * 16 < stored_bytes) return;
#pragma unroll
    for (int i = 0; i < 4; ++i)
      codes[0][i] = codes[1][i] = Tile::kKind == CodeKind::kBytes ? 0x80808080U : 0x88888888U;
  }
};

/// A warp's part of a unit. The halves are a loop: half the code, at 2 % of the time.
template <class Tile, DecodeWay kWay>
__device__ __forceinline__ void multiply_unit(std::uint32_t codes_at, std::uint32_t params_at,
                                              int stored_bytes, sm90::CoreMatrices<Tile::kTokens> x,
                                              float (&sums)[Tile::kProductsOfGroup][Tile::kTokens / 2]) {
  using T = typename Tile::T;
  constexpr int kHalfSteps = 2 * Tile::kLanesUnits, kHalfBytes = Tile::kUnitBytes / 2;
  constexpr int kParamsOfHalf = Tile::kParams == 1 ? 0 : 4;
#pragma unroll
  for (int i = 0; i < Tile::kProductsOfGroup; ++i) sm90::hold_sums(sums[i]);
#pragma unroll
  for (int i = 0; i < Tile::kProductsOfGroup; ++i) {
#pragma unroll 1
    for (int half = 0; half < 2; ++half) {
      const LaneCodes<Tile> lane((codes_at ^ half * kHalfBytes) + i * (64 * Tile::kUnitBytes),
                                 params_at + half * kParamsOfHalf + i * (64 * Tile::kParams * 4),
                                 stored_bytes - half * kHalfBytes);
      const GroupPair<T> groups[2] = {GroupPair<T>(lane.params[0]), GroupPair<T>(lane.params[1])};
#pragma unroll
      for (int u = 0; u < Tile::kLanesUnits; ++u) {
        std::uint32_t a[2][4];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          std::uint32_t pairs[4];
          decode_unit<Tile, kWay>(lane.codes[r], u, groups[r], pairs);
#pragma unroll
          for (int j = 0; j < 4; ++j) a[j / 2][j % 2 * 2 + r] = pairs[j];
        }
        sm90::products_begin();
#pragma unroll
        for (int k = 0; k < 2; ++k)
          sm90::add_product<Tile::kIsBf16>(sums[i], a[k], x.descriptor(half * kHalfSteps + u * 2 + k));
        sm90::products_commit();
        // The next codes become values while these products run; none runs on into the loop's next turn,
        // where the compiler would wait for each.
        if (u + 1 < Tile::kLanesUnits) {
          sm90::products_wait<1>();
        } else {
          sm90::products_wait<0>();
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < Tile::kProductsOfGroup; ++i) sm90::hold_sums(sums[i]);
}

template <class Tile>
__device__ __forceinline__ void multiply_unit_by(DecodeWay way, std::uint32_t codes_at,
                                                 std::uint32_t params_at, int stored_bytes,
                                                 sm90::CoreMatrices<Tile::kTokens> x,
                                                 float (&sums)[Tile::kProductsOfGroup][Tile::kTokens / 2]) {
  if constexpr (Tile::kHasScaled) {
    if (way == DecodeWay::kScaledNibbles)
      return multiply_unit<Tile, DecodeWay::kScaledNibbles>(codes_at, params_at, stored_bytes, x, sums);
  }
  if constexpr (Tile::kKind == CodeKind::kNibblesFromMinimum) {
    if (way == DecodeWay::kDefinition)
      return multiply_unit<Tile, DecodeWay::kDefinition>(codes_at, params_at, stored_bytes, x, sums);
  }
  multiply_unit<Tile, DecodeWay::kDifference>(codes_at, params_at, stored_bytes, x, sums);
}

/// The products of one warp of a group.
template <class Tile>
__device__ void multiply_units(const QuantProduct& p, const QuantShared<Tile>& shared, int group, int warp) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int g = lane / 4, t = lane % 4;
  const int row_of_eight = g / 2 + g % 2 * 4;
  const int first_product = group * Tile::kProductsOfGroup;
  const int row = first_product * 64 + warp * 16 + row_of_eight;
  const std::uint32_t codes_of_lane = row * Tile::kUnitBytes + (t ^ row_of_eight) * 16;
  const std::uint32_t params_of_lane = row * (Tile::kParams * 4) + (Tile::kParams == 4 ? t / 2 * 8 : 0);

  float sums[Tile::kProductsOfGroup][Tile::kTokens / 2] = {};
  UnitCursor units(p.work);
  RingPlace<Tile> place;
  while (units.left > 0) {
    const int tile = units.tile;
    // A loop of its own: the end of a tile inside of it costs the products a sixth of their rate.
    do {
      sm90::barrier_wait(shared.full(place.stage), place.parity);
      const std::uint32_t codes = shared.codes(place.stage) + codes_of_lane;
      const std::uint32_t params = shared.params(place.stage) + params_of_lane;
      const sm90::CoreMatrices<Tile::kTokens> x(shared.x(place.stage));
      auto way = DecodeWay::kDifference;
      if constexpr (Tile::kKind != CodeKind::kBytes)
        way = static_cast<DecodeWay>(load_shared_4(shared.ways(place.stage) + group * 4));
      const int stored_bytes = p.row_bytes - units.unit * Tile::kUnitBytes;
      multiply_unit_by<Tile>(way, codes, params, stored_bytes, x, sums);
      if (lane == 0) sm90::barrier_arrive(shared.empty(place.stage));
      place.advance();
      units.advance();
    } while (units.tile == tile && units.left > 0);
    wait_for_kernels_before();  // its sums may lie where these go
#pragma unroll
    for (int i = 0; i < Tile::kProductsOfGroup; ++i) {
      const int part = (first_product + i) * 4 + warp;
      const int first_row = tile * Tile::kRows + part * 16;
      float4 vectors[Tile::kTokenTiles];
#pragma unroll
      for (int v = 0; v < Tile::kTokenTiles; ++v) {
        vectors[v] = make_float4(sums[i][4 * v], sums[i][4 * v + 1], sums[i][4 * v + 2], sums[i][4 * v + 3]);
      }
      if (first_row < p.rows)
        finish_fragments<true, 1, Tile::kTokenTiles, 8, 8>(p.work, p.exchange, tile, part, Tile::kRowParts,
                                                           first_row + row_of_eight, p.out, vectors);
#pragma unroll
      for (float& sum : sums[i]) sum = 0;
    }
  }
}

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, 1)
    quant_product_sm90(const __grid_constant__ QuantProduct p, const __grid_constant__ CodeMaps maps) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) std::byte shared_bytes[];
  const QuantShared<Tile> shared{shared_address(shared_bytes)};
  let_next_kernel_start();
  if (threadIdx.x == 0) shared.init_barriers();
  __syncthreads();
  const int warp = sm90::as_uniform(static_cast<int>(threadIdx.x) / 32);
  if (warp < Tile::kConsumerWarps) {
    multiply_units<Tile>(p, shared, warp / 4, warp % 4);
  } else {
    const int operand_warp = warp - Tile::kConsumerWarps;
    bring_operands<Tile>(p, maps, shared, operand_warp / Tile::kTeamWarps, operand_warp % Tile::kTeamWarps);
  }
#else
  __trap();
#endif
}

}  // namespace sluice::kernels::fused
