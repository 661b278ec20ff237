// The fused product over quantised weights on sm_90a: shapes and shared memory. For *.cu files only.
//
// Tiling. A thread block has 256 rows of W, 64 for each product of a warpgroup, and goes through their
// columns in units of 128 bytes a row: 256 codes of 4 bits, or 128 of 8. Its codes come in two boxes of 128
// rows with the 128-byte swizzle, which has 16 bytes of number c of row r at c ^ (r % 8): so no eight rows of
// a matrix that ldmatrix takes meet in a bank. x comes in boxes of 64 columns with that swizzle, as the
// products take it.
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
  static constexpr int kRows = 256;
  static constexpr int kRowParts = kRows / 16;  // whose sums one warp has

  // Warps: four groups of four consumers, of 64 rows each; two warps that prepare parameters, of 128 rows
  // each; one that copies codes and parameters, and one that copies x.
  static constexpr int kConsumerWarps = kRowParts, kPreparers = 2;
  static constexpr int kThreads = 32 * (kConsumerWarps + kPreparers + 2);

  static constexpr int kUnitBytes = 128;
  static constexpr int kCols = kUnitBytes * (kKind == CodeKind::kBytes ? 1 : 2), kHalfCols = kCols / 2;
  static constexpr int kParams = kKind == CodeKind::kBytes ? 1 : 4;  // of a row in a unit

  // Shared memory, by what there is a ring of.
  static constexpr int kBoxCols = 64, kBoxBytes = kTokens * kBoxCols * 2;  // of x
  static constexpr int kCodeBytes = kRows * kUnitBytes, kXBytes = kCols / kBoxCols * kBoxBytes;
  static constexpr int kGroupParamBytes = 128 * 4, kBlockParamBytes = kParams * kGroupParamBytes;
  static constexpr int kParamBytes = 2 * kBlockParamBytes, kWayBytes = 2 * 4;
  static constexpr int kFitting = (227 * 1024 - 256) / (kCodeBytes + kXBytes + kParamBytes + kWayBytes);
  static constexpr int kStages = kFitting < 6 ? kFitting : 6;
  static constexpr int kXAt = kStages * kCodeBytes, kParamsAt = kXAt + kStages * kXBytes;
  static constexpr int kWaysAt = kParamsAt + kStages * kParamBytes;
  static constexpr int kBarriersAt = kWaysAt + kStages * kWayBytes;
  static constexpr int kSharedBytes = kBarriersAt + (3 * kStages + 1) * 8;
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
  /// Codes and parameters, as they are stored, have landed.
  __device__ std::uint32_t landed(int stage) const { return base + Tile::kBarriersAt + stage * 8; }
  /// x has landed, and all that is landed is prepared.
  __device__ std::uint32_t full(int stage) const { return landed(Tile::kStages + stage); }
  /// All consumers are done.
  __device__ std::uint32_t empty(int stage) const { return landed(2 * Tile::kStages + stage); }
  /// Its first phase ends once the kernels before are done.
  __device__ std::uint32_t kernels_done() const { return landed(3 * Tile::kStages); }

  __device__ void init_barriers() const {
    sm90::barrier_init(kernels_done(), 1);
    for (int s = 0; s < Tile::kStages; ++s) {
      sm90::barrier_init(landed(s), 1);
      sm90::barrier_init(full(s), 1 + Tile::kPreparers);
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
  __device__ void advance() {
    if (++stage == Tile::kStages) {
      stage = 0;
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
  __device__ void advance() {
    --left;
    if (++unit == per_tile) {
      unit = 0;
      ++tile;
    }
  }
};

}  // namespace sluice::kernels::fused
