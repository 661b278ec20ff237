// y = epilogue(x W^T + bias) + residual over a quantised W, for up to 64 rows of x, on sm_90a. One persistent
// block a multiprocessor, a ring of units (sm90_tile.cuh) in its shared memory, and no barrier of the block:
//
//   1 warp         codes, parameters --tensor and bulk copies--> ring
//   1 warp         x --tensor copies--> ring
//   2 warps        parameters --to the form in which they are used--> where they are
//   4 warpgroups   codes --decoded in registers--> a of their products; x is b, in the ring
//
// The grid shares the units (StreamK); sums of a tile that several blocks work on are added in the order of
// columns by whichever warp is last. For *.cu files only.
#pragma once

#include "kernels/format/cuda/sm90_wgmma_registers.cuh"
#include "kernels/format/quantised/sm90_operands.cuh"

namespace sluice::kernels::fused {

/// What a lane takes of half a unit: its words of the four chunks of 16 bytes of rows g and g + 8, and their
/// groups' parameters.
template <class Tile>
struct LaneHalf {
  static constexpr int kGroups = Tile::kParams == 1 ? 1 : 2;
  std::uint32_t codes[2][4], params[2][kGroups];  // by row

  /// `codes_at`: of the row of the first matrix that the lane names. `stored_bytes`: of a row, from this
  /// half's first on.
  __device__ __forceinline__ void load(std::uint32_t codes_at, std::uint32_t params_at, int stored_bytes) {
#pragma unroll
    for (int two = 0; two < 2; ++two) {
      std::uint32_t words[4];
      load_matrices(words, codes_at ^ two * 32);
#pragma unroll
      for (int i = 0; i < 4; ++i) codes[i % 2][2 * two + i / 2] = words[i];
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
      for (int g = 0; g < kGroups; ++g)
        params[r][g] = load_shared_4(params_at + g * Tile::kGroupParamBytes + r * (8 * 4));
    }
    if constexpr (Tile::kKind != CodeKind::kNibblesFromMinimum) {
      if (stored_bytes < Tile::kUnitBytes / 2) take_zeros_behind(stored_bytes);
    }
  }

 private:
  /// Behind a row the copies have put bytes 0, which are codes below the least of the format: times its scale
  /// one may be infinite, and times a zero of x no number.
  __device__ __forceinline__ void take_zeros_behind(int stored_bytes) {
#pragma unroll
    for (int chunk = 0; chunk < 4; ++chunk)
      if (chunk * 16 >= stored_bytes)
        codes[0][chunk] = codes[1][chunk] = Tile::kKind == CodeKind::kBytes ? 0x80808080U : 0x88888888U;
  }
};

/// A warp's part of a unit. The second half is loaded while products of the first one run, and 32 columns are
/// decoded while those of the ones before run. None runs on at the end, for the compiler would wait for every
/// one of a loop that products run on in.
template <class Tile, DecodeWay kWay>
__device__ __forceinline__ void multiply_unit(std::uint32_t codes_at, std::uint32_t params_at,
                                              int stored_bytes, sm90::SharedAddress x_at,
                                              float (&sums)[Tile::kTokens / 2]) {
  using T = typename Tile::T;
  using Half = LaneHalf<Tile>;
  constexpr int kHalfBytes = Tile::kUnitBytes / 2, kBoxesOfHalf = Tile::kHalfCols / Tile::kBoxCols;
  constexpr int kTurns = Tile::kHalfCols / 32, kBox = Tile::kBoxBytes / 16;
  const std::uint64_t x = sm90::operand_descriptor(x_at);
  sm90::hold_sums(sums);
  Half halves[2];
  halves[0].load(codes_at, params_at, stored_bytes);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int turn = 0; turn < kTurns; ++turn) {
      std::uint32_t a[2][4];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        std::uint32_t pairs[4];
        const GroupPair<T> group(halves[half].params[r][turn * Half::kGroups / kTurns]);
        decode_turn<Tile, kWay>(halves[half].codes[r], turn, group, pairs);
#pragma unroll
        for (int j = 0; j < 4; ++j) a[j / 2][j % 2 * 2 + r] = pairs[j];
      }
      sm90::products_begin();
#pragma unroll
      for (int k = 0; k < 2; ++k)
        sm90::add_product<Tile::kIsBf16>(
            sums, a[k], x + (half * kBoxesOfHalf + turn / 2) * kBox + (turn % 2 * 2 + k) * sm90::kColumnStep);
      sm90::products_commit();
      if (half == 0 && turn == 0)
        halves[1].load(codes_at ^ kHalfBytes, params_at + (Half::kGroups - 1) * 2 * Tile::kGroupParamBytes,
                       stored_bytes - kHalfBytes);
      if (half == 0 || turn + 1 < kTurns) {
        sm90::products_wait<1>();
      } else {
        sm90::products_wait<0>();
      }
    }
  }
  sm90::hold_sums(sums);
}

template <class Tile>
__device__ __forceinline__ void multiply_unit_by(DecodeWay way, std::uint32_t codes_at,
                                                 std::uint32_t params_at, int stored_bytes,
                                                 sm90::SharedAddress x_at, float (&sums)[Tile::kTokens / 2]) {
  if constexpr (Tile::kHasScaled) {
    if (way == DecodeWay::kScaledNibbles)
      return multiply_unit<Tile, DecodeWay::kScaledNibbles>(codes_at, params_at, stored_bytes, x_at, sums);
  }
  if constexpr (Tile::kKind == CodeKind::kNibblesFromMinimum) {
    if (way == DecodeWay::kDefinition)
      return multiply_unit<Tile, DecodeWay::kDefinition>(codes_at, params_at, stored_bytes, x_at, sums);
  }
  multiply_unit<Tile, DecodeWay::kDifference>(codes_at, params_at, stored_bytes, x_at, sums);
}

/// All products of one warp: of 16 rows of each tile.
template <class Tile>
__device__ void multiply_units(const QuantProduct& p, const QuantShared<Tile>& shared, int warp) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = warp * 16;
  // Of four matrices: rows 0 and 8 of a chunk, then of the next one.
  const std::uint32_t codes_of_lane =
      (row + lane / 8 % 2 * 8 + lane % 8) * Tile::kUnitBytes + (lane / 16 ^ lane % 8) * 16;
  const std::uint32_t params_of_lane = row / 128 * Tile::kBlockParamBytes + (row % 128 + lane / 4) * 4;

  float sums[Tile::kTokens / 2] = {};
  UnitCursor units(p.work);
  RingPlace<Tile> place;
  while (units.left > 0) {
    const int tile = units.tile;
    // A loop of its own: the end of a tile inside of it costs the products a sixth of their rate.
    do {
      sm90::barrier_wait(shared.full(place.stage), place.parity);
      auto way = DecodeWay::kDifference;
      if constexpr (Tile::kKind != CodeKind::kBytes)
        way = static_cast<DecodeWay>(load_shared_4(shared.ways(place.stage) + row / 128 * 4));
      multiply_unit_by<Tile>(way, shared.codes(place.stage) + codes_of_lane,
                             shared.params(place.stage) + params_of_lane,
                             p.row_bytes - units.unit * Tile::kUnitBytes, shared.x(place.stage), sums);
      if (lane == 0) sm90::barrier_arrive(shared.empty(place.stage));
      place.advance();
      units.advance();
    } while (units.tile == tile && units.left > 0);
    wait_for_kernels_before();  // its sums may lie where these go
    const int first_row = tile * Tile::kRows + row;
    float4 vectors[Tile::kTokenTiles];
#pragma unroll
    for (int v = 0; v < Tile::kTokenTiles; ++v)
      vectors[v] = make_float4(sums[4 * v], sums[4 * v + 1], sums[4 * v + 2], sums[4 * v + 3]);
    if (first_row < p.rows)
      finish_fragments<true, 1, Tile::kTokenTiles, 4, 8>(p.work, p.exchange, tile, warp, Tile::kRowParts,
                                                         first_row + lane / 4, p.out, vectors);
#pragma unroll
    for (float& sum : sums) sum = 0;
  }
}

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, 1)
    quant_product_sm90(const __grid_constant__ QuantProduct p, const __grid_constant__ QuantMaps maps) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) std::byte shared_bytes[];
  const QuantShared<Tile> shared{shared_address(shared_bytes)};
  if (threadIdx.x == 0) shared.init_barriers();
  __syncthreads();
  const int warp = sm90::as_uniform(static_cast<int>(threadIdx.x) / 32);
  const int helper = warp - Tile::kConsumerWarps;
  if (helper == Tile::kPreparers) {
    if (threadIdx.x % 32 == 0) copy_units(p, maps, shared);
    __syncwarp();
    // Not earlier: the kernel behind asks for its weights as soon as it starts.
    let_next_kernel_start();
    return;
  }
  let_next_kernel_start();
  if (helper < 0) {
    multiply_units<Tile>(p, shared, warp);
  } else if (helper < Tile::kPreparers) {
    ParamPreparer<Tile>(p, shared, helper).prepare_all();
  } else if (threadIdx.x % 32 == 0) {
    copy_activations(p, maps, shared);
  }
#else
  __trap();
#endif
}

}  // namespace sluice::kernels::fused
