// The fused product over quantised weights on sm_90a: shapes, shared memory, and how x is put in order. For
// *.cu files only.
//
// Tiling. A thread block has 256 rows of W, 64 for each product of a warpgroup, and goes through their
// columns in units of 128 bytes a row: 256 codes of 4 bits, or 128 of 8. A unit is two halves of 64 bytes a
// row, of which a lane takes 16 in one piece. Which columns meet in one step of the multiplier does not
// matter as long as x has them at the same places, so x is put into the order in which codes become
// fragments.
//
// Rows. The swizzle of the tensor copies has 16 bytes of number c of row r at c ^ (r % 8). Row g of a
// fragment is row g / 2 + 4 (g % 2) of eight of W: then the 8 lanes that read together never meet in a bank.
#pragma once

#include "kernels/format/cuda/sm90_instructions.cuh"
#include "kernels/format/quantised/quant_product.cuh"

namespace sluice::kernels::fused {

template <class T_, CodeKind kKind_, int kTokens_>
struct QuantTileSm90 {
  using T = T_;
  static constexpr CodeKind kKind = kKind_;
  static constexpr bool kIsBf16 = ElementType<T>::kDType == DType::kBF16;
  static constexpr bool kHasScaled = kKind != CodeKind::kBytes && !kIsBf16;
  static constexpr int kTokens = kTokens_, kTokenTiles = kTokens / 8;
  static constexpr int kRows = 256, kProductRows = 64, kProducts = kRows / kProductRows;
  static constexpr int kRowParts = kRows / 16;  // whose sums one warp has

  // Warps: consumers in groups of four, fewer where sums take many registers. For the operands teams of four;
  // of two, where registers allow that, each has every second unit and so twice its time for its loads.
  static constexpr int kGroups = kTokens <= 32 ? 4 : 2, kProductsOfGroup = kProducts / kGroups;
  static constexpr int kTeams = kTokens <= 32 ? 2 : 1, kTeamWarps = 4;
  static constexpr int kConsumerWarps = 4 * kGroups;
  static constexpr int kThreads = 32 * (kConsumerWarps + kTeams * kTeamWarps);

  static constexpr int kUnitBytes = 128;
  static constexpr int kCols = kUnitBytes * (kKind == CodeKind::kBytes ? 1 : 2), kHalfCols = kCols / 2;
  static constexpr int kLanesUnits = kHalfCols / 32;                 // of 8 columns, of a lane and half
  static constexpr int kParams = kKind == CodeKind::kBytes ? 1 : 4;  // of a row in a unit

  // x: 32 lanes have 4 places of columns of 8 rows, as often as it takes.
  static constexpr int kItems = kTokenTiles * kCols / 128;
  static constexpr int kItemsOfWarp = (kItems + kTeamWarps - 1) / kTeamWarps;
  static constexpr int kStepBytes = kTokens * 32;  // of 16 columns

  // Shared memory, by what there is a ring of.
  static constexpr int kCodeBytes = kRows * kUnitBytes, kXBytes = kTokens * kCols * 2;
  static constexpr int kParamBytes = kRows * kParams * 4, kWayBytes = kGroups * 4;
  static constexpr int kFitting = (227 * 1024 - 128) / (kCodeBytes + kXBytes + kParamBytes + kWayBytes);
  static constexpr int kStages = kFitting < 6 ? kFitting : 6;
  static constexpr int kXAt = kStages * kCodeBytes, kParamsAt = kXAt + kStages * kXBytes;
  static constexpr int kWaysAt = kParamsAt + kStages * kParamBytes;
  static constexpr int kBarriersAt = kWaysAt + kStages * kWayBytes;
  static constexpr int kSharedBytes = kBarriersAt + kStages * 16;
  static_assert(kStages >= 3 && kSharedBytes <= 227 * 1024);
};

/// Where things are in the shared memory of a block.
template <class Tile>
struct QuantShared {
  std::uint32_t base;

  __device__ std::uint32_t codes(int stage) const { return base + stage * Tile::kCodeBytes; }
  __device__ std::uint32_t x(int stage) const { return base + Tile::kXAt + stage * Tile::kXBytes; }
  __device__ std::uint32_t params(int stage) const {
    return base + Tile::kParamsAt + stage * Tile::kParamBytes;
  }
  __device__ std::uint32_t ways(int stage) const { return base + Tile::kWaysAt + stage * Tile::kWayBytes; }
  /// Full: codes, and x and parameters from four warps, have arrived. Empty: all consumers are done.
  __device__ std::uint32_t full(int stage) const { return base + Tile::kBarriersAt + stage * 16; }
  __device__ std::uint32_t empty(int stage) const { return full(stage) + 8; }

  __device__ void init_barriers() const {
    for (int s = 0; s < Tile::kStages; ++s) {
      sm90::barrier_init(full(s), 1 + Tile::kTeamWarps);
      sm90::barrier_init(empty(s), Tile::kConsumerWarps);
    }
    sm90::fence_barrier_init();
  }
};

/// A place in the ring, and the parity of its phase there.
template <class Tile>
struct RingPlace {
  int stage = 0;
  std::uint32_t parity = 0;
  __device__ void advance(int units = 1) {
    stage += units;
    if (stage >= Tile::kStages) {
      stage -= Tile::kStages;
      parity ^= 1;
    }
  }
};

/// A block's units, in order.
struct UnitCursor {
  int tile, unit, left, per_tile;
  __device__ explicit UnitCursor(const StreamK& work) {
    const int first = work.first_unit(static_cast<int>(blockIdx.x));
    left = work.first_unit(static_cast<int>(blockIdx.x) + 1) - first;
    per_tile = work.per_tile;
    tile = first / per_tile;
    unit = first % per_tile;
  }
  /// There may be no unit there: `left` is not positive then.
  __device__ void advance(int units = 1) {
    left -= units;
    unit += units;
    while (unit >= per_tile) {
      unit -= per_tile;
      ++tile;
    }
  }
};

}  // namespace sluice::kernels::fused
