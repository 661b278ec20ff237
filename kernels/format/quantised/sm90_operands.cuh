// The fused product over quantised weights on sm_90a: the warps that bring codes, the groups' parameters and
// x into shared memory, and bring parameters into the form in which the consumers take them. For *.cu files
// only.
#pragma once

#include <type_traits>

#include <cuda.h>

#include "kernels/device/cuda/launch_kernel.cuh"
#include "kernels/format/quantised/sm90_tile.cuh"

namespace sluice::kernels::fused {

/// The codes as tensors of [blocks][128 rows][bytes of a row], full blocks and the last one; and x.
struct QuantMaps {
  CUtensorMap full, last, x;
  std::int32_t full_blocks;
};

/// The groups of a unit that the matrix has.
struct UnitGroups {
  int first, count;
  template <class Tile>
  __device__ static UnitGroups of(const QuantProduct& p, int unit, Tile) {
    const int first = unit * Tile::kCols >> p.group_shift;
    return {first, min(max(1, Tile::kCols >> p.group_shift), p.num_groups - first)};
  }
};

/// Starts the copies of a unit's codes and parameters into a stage that is empty.
template <class Tile>
__device__ void copy_unit(const QuantProduct& p, const QuantMaps& maps, const QuantShared<Tile>& shared,
                          const UnitCursor& at, int stage, std::uint64_t policy) {
  const std::uint32_t landed = shared.landed(stage);
  const UnitGroups groups = UnitGroups::of(p, at.unit, Tile{});
  const int blocks = p.block_rows(2 * at.tile + 1) > 0 ? 2 : 1;
  std::uint32_t bytes = 0;
  for (int b = 0; b < blocks; ++b)
    bytes += Tile::kCodeBytes / 2 + groups.count * p.group_bytes(2 * at.tile + b);
  sm90::barrier_arrive_expect(landed, bytes);
  for (int b = 0; b < blocks; ++b) {
    const int block = 2 * at.tile + b;
    const bool in_full = block < maps.full_blocks;
    sm90::tensor_copy(shared.codes(stage) + b * (Tile::kCodeBytes / 2), in_full ? &maps.full : &maps.last,
                      at.unit * Tile::kUnitBytes, 0, in_full ? block : 0, landed, policy);
    const int group_bytes = p.group_bytes(block);
    sm90::bulk_copy(shared.params(stage) + b * Tile::kBlockParamBytes,
                    p.params(block) + std::int64_t{groups.first} * group_bytes, groups.count * group_bytes,
                    landed, policy);
  }
}

/// A block's codes and parameters, by one thread. Until the kernels before are done one unit is under way at
/// a time: behind rings full of copies, what those kernels still exchange takes longer.
template <class Tile>
__device__ void copy_units(const QuantProduct& p, const QuantMaps& maps, const QuantShared<Tile>& shared) {
  const std::uint64_t policy = evict_first_policy();
  RingPlace<Tile> place;
  for (UnitCursor units(p.work); units.left > 0; units.advance()) {
    sm90::barrier_wait(shared.empty(place.stage), place.parity ^ 1);
    copy_unit(p, maps, shared, units, place.stage, policy);
    while (!sm90::barrier_is_past(shared.kernels_done(), 0) &&
           !sm90::barrier_is_past(shared.landed(place.stage), place.parity)) {
    }
    place.advance();
  }
}

/// A block's x, by one thread, which also tells the one above once the kernels before are done.
template <class Tile>
__device__ void copy_activations(const QuantProduct& p, const QuantMaps& maps,
                                 const QuantShared<Tile>& shared) {
  sm90::prefetch_map(&maps.x);
  wait_for_kernels_before();
  sm90::barrier_arrive(shared.kernels_done());
  RingPlace<Tile> place;
  for (UnitCursor units(p.work); units.left > 0; units.advance()) {
    const std::uint32_t full = shared.full(place.stage);
    sm90::barrier_wait(shared.empty(place.stage), place.parity ^ 1);
    sm90::barrier_arrive_expect(full, Tile::kXBytes);
#pragma unroll
    for (int box = 0; box < Tile::kCols / Tile::kBoxCols; ++box)
      sm90::tensor_copy(shared.x(place.stage) + box * Tile::kBoxBytes, &maps.x,
                        units.unit * Tile::kCols + box * Tile::kBoxCols, 0, full);
    place.advance();
  }
}

/// Brings parameters that have landed into the consumers' form: by one warp those of a block of 128 rows.
template <class Tile>
class ParamPreparer {
 public:
  using T = typename Tile::T;

  __device__ ParamPreparer(const QuantProduct& p, const QuantShared<Tile>& shared, int warp)
      : p_(p), shared_(shared), block_(warp), row_(static_cast<int>(threadIdx.x) % 32) {}

  __device__ void prepare_all() {
    RingPlace<Tile> place;
    for (UnitCursor units(p_.work); units.left > 0; units.advance()) {
      sm90::barrier_wait(shared_.landed(place.stage), place.parity);
      load(units, place.stage);
      __syncwarp();  // all lanes have what the stores overwrite
      store(place.stage);
      sm90::fence_for_async_reads();
      __syncwarp();
      if (threadIdx.x % 32 == 0) sm90::barrier_arrive(shared_.full(place.stage));
      place.advance();
    }
  }

 private:
  using Stored =
      std::conditional_t<Tile::kKind == CodeKind::kNibblesFromMinimum, std::uint32_t, std::uint16_t>;
  static constexpr int kRowsOfLane = 4;  // 32 rows apart

  __device__ std::uint32_t params(int stage) const {
    return shared_.params(stage) + block_ * Tile::kBlockParamBytes;
  }

  __device__ void load(const UnitCursor& units, int stage) {
    const int block = 2 * units.tile + block_;
    const int rows = p_.block_rows(block), group_bytes = p_.group_bytes(block);
    const int count = UnitGroups::of(p_, units.unit, Tile{}).count;
#pragma unroll
    for (int i = 0; i < kRowsOfLane; ++i) {
      const int row = row_ + i * 32;
#pragma unroll
      for (int g = 0; g < Tile::kParams; ++g) {
        const std::uint32_t from = params(stage) + g * group_bytes + row * static_cast<int>(sizeof(Stored));
        params_[i][g] = 0;
        if (row < rows && g < count) {
          if constexpr (sizeof(Stored) == 4) {
            params_[i][g] = load_shared_4(from);
          } else {
            params_[i][g] = sm90::load_half_word(from);
          }
        }
      }
    }
  }

  /// By group and row, four groups of 4-bit codes: of groups of 128 columns each one twice.
  __device__ void store(int stage) {
    const std::uint32_t to = params(stage) + row_ * 4;
    if constexpr (Tile::kKind == CodeKind::kBytes) {
#pragma unroll
      for (int i = 0; i < kRowsOfLane; ++i) store_shared_4(to + i * (32 * 4), params_[i][0]);
    } else {
      constexpr bool kMinimum = Tile::kKind == CodeKind::kNibblesFromMinimum;
      unsigned way = 0;
#pragma unroll
      for (int i = 0; i < kRowsOfLane; ++i) {
#pragma unroll
        for (int g = 0; g < Tile::kParams; ++g)
          way = max(way, static_cast<unsigned>(decode_way<T>(params_[i][g])));
      }
      way = __reduce_max_sync(0xFFFFFFFFU, way);
      if (static_cast<DecodeWay>(way) == DecodeWay::kScaledNibbles) {
#pragma unroll
        for (int i = 0; i < kRowsOfLane; ++i) {
#pragma unroll
          for (int g = 0; g < Tile::kParams; ++g) params_[i][g] = scale_nibbles<kMinimum>(params_[i][g]);
        }
      }
      const bool four = p_.group_shift == 6;
#pragma unroll
      for (int i = 0; i < kRowsOfLane; ++i) {
#pragma unroll
        for (int g = 0; g < Tile::kParams; ++g)
          store_shared_4(to + (g * 128 + i * 32) * 4, four ? params_[i][g] : params_[i][g / 2]);
      }
      if (threadIdx.x % 32 == 0) store_shared_4(shared_.ways(stage) + block_ * 4, way);
    }
  }

  const QuantProduct& p_;
  const QuantShared<Tile>& shared_;
  const int block_, row_;
  std::uint32_t params_[kRowsOfLane][Tile::kParams];
};

}  // namespace sluice::kernels::fused
