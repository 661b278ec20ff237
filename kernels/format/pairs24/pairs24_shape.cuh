// The thread block of the fused product of pairs24 (pairs24_product.cuh): what of its shared memory is whose.
// For *.cu files only.
#pragma once

#include "core/units.h"
#include "kernels/format/cuda/fused_epilogue.cuh"
#include "kernels/format/cuda/sm90_instructions.cuh"
#include "kernels/format/pairs24/unit.h"

namespace sluice::kernels::pairs24 {

using sm90::SharedAddress;

inline constexpr int kUnitCols = static_cast<int>(kPairsTileCols);

/// A product's arguments as the kernel takes them.
struct Product {
  const std::byte* units;
  const std::uint32_t* table;
  std::int32_t unit_rows;  ///< rows of units; the last tile may lack those of its last warpgroups
  fused::StreamK work;     ///< tiles of S::kTileRows rows, in steps of 256 columns; a run for each block
  fused::Exchange exchange;
  fused::Output out;
  /// 128 >> k: factors that move bit k to 128. Not constants, for the compiler would make shifts of them,
  /// which go to the pipe of the tests.
  std::uint32_t steps[8];

  template <class S>
  __device__ std::int32_t unit_of(std::int32_t tile, std::int32_t col, int warpgroup) const {
    return (tile * S::kWarpgroups + warpgroup) * work.per_tile + col;
  }
  template <class S>
  __device__ bool has_rows(std::int32_t tile, int warpgroup) const {
    return tile * S::kWarpgroups + warpgroup < unit_rows;
  }
};

/// For up to kTokens rows of x, with so many blocks on a multiprocessor, of so many warpgroups that multiply,
/// each the units of 64 rows, and share x.
template <int kTokens_, int kBlocks_, int kWarpgroups_>
struct Shape {
  static constexpr int kTokens = kTokens_, kBlocks = kBlocks_, kWarpgroups = kWarpgroups_;
  static constexpr int kTileRows = kWarpgroups * static_cast<int>(kPairsTileRows);
  static constexpr int kTileWarps = 4 * kWarpgroups;
  static constexpr int kConsumerThreads = 128 * kWarpgroups;
  static constexpr int kThreads = kConsumerThreads + 64;
  /// Steps of 32 columns whose words are loaded while the products of as many run: what registers allow.
  static constexpr int kStepsAtOnce = (kTokens >= 64 && kWarpgroups > 2) || kWarpgroups > 4 ? 1 : 2;
  /// x comes in pieces of so many columns.
  static constexpr int kPieceCols = kTokens <= 32 ? 128 : 64;
  static constexpr int kPieceSteps = kPieceCols / kPairsStepCols;
  /// Of a unit, which holds all of them to its end if it has entries: the fewest that must have room.
  static constexpr int kPieces = kUnitCols / kPieceCols;
  static constexpr int kPieceBytes = kTokens * kPieceCols * 2;
  static constexpr int kBoxBytes = kTokens * 128;  ///< 64 columns
  static_assert(kPieceSteps % kStepsAtOnce == 0);

  // Shared memory: barriers, pieces of x, then slots for units.
  static constexpr int kMaxPieces = 8, kMaxStages = 8;
  static constexpr int kWantedPieces = kTokens <= 32 ? 4 : kTokens == 128 ? 6 : 8;
  static constexpr int kBarriers = 2 * kMaxPieces + 2 * kWarpgroups * kMaxStages + 1;
  static constexpr int kRingsAt = 1024;
  static_assert(8 * kBarriers + 4 <= kRingsAt);
  static constexpr int kSharedBytes = (kBlocks == 2 ? 113 : 227) * 1024;
  static constexpr int kRoom = kSharedBytes - kRingsAt;
  static_assert(kRoom >= kPieces * kPieceBytes + kWarpgroups * align_up(kPairsMostBytes, 128));
};

/// What the block's largest unit leaves room for: slots as large as it, `stages` for each warpgroup, and
/// pieces of x, at least those of a unit.
template <class S>
class Rings {
 public:
  __device__ Rings(SharedAddress base, int largest_bytes)
      : base_(base), slot_bytes_((largest_bytes + 127) / 128 * 128) {
    const int stage_bytes = S::kWarpgroups * slot_bytes_;
    stages_ = min(S::kMaxStages, (S::kRoom - S::kWantedPieces * S::kPieceBytes) / stage_bytes);
    if (stages_ < 2) stages_ = min(2, (S::kRoom - S::kPieces * S::kPieceBytes) / stage_bytes);
    pieces_ = min(S::kMaxPieces, (S::kRoom - stages_ * stage_bytes) / S::kPieceBytes);
  }
  __device__ int stages() const { return stages_; }
  __device__ int pieces() const { return pieces_; }
  __device__ SharedAddress piece(int i) const { return base_ + S::kRingsAt + i * S::kPieceBytes; }
  __device__ SharedAddress slot(int warpgroup, int stage) const {
    return piece(pieces_) + (stage * S::kWarpgroups + warpgroup) * slot_bytes_;
  }

  static __device__ SharedAddress piece_full(SharedAddress base, int i) { return base + 8 * i; }
  static __device__ SharedAddress piece_empty(SharedAddress base, int i) {
    return base + 8 * (S::kMaxPieces + i);
  }
  static __device__ SharedAddress slot_full(SharedAddress base, int warpgroup, int stage) {
    return base + 8 * (2 * S::kMaxPieces + S::kWarpgroups * stage + warpgroup);
  }
  static __device__ SharedAddress slot_empty(SharedAddress base, int warpgroup, int stage) {
    return slot_full(base, warpgroup, S::kMaxStages + stage);
  }
  /// Its first phase ends once the kernels before are done.
  static __device__ SharedAddress kernels_done(SharedAddress base) { return base + 8 * (S::kBarriers - 1); }
  static __device__ void init_barriers(SharedAddress base) {
    sm90::barrier_init(kernels_done(base), 1);
    for (int i = 0; i < S::kMaxPieces; ++i) {
      sm90::barrier_init(piece_full(base, i), 1);
      sm90::barrier_init(piece_empty(base, i), S::kTileWarps);
    }
    for (int i = 0; i < S::kWarpgroups * S::kMaxStages; ++i) {
      sm90::barrier_init(slot_full(base, 0, 0) + 8 * i, 1);
      sm90::barrier_init(slot_empty(base, 0, 0) + 8 * i, 4);
    }
    sm90::fence_barrier_init();
  }

 private:
  SharedAddress base_;
  int slot_bytes_, stages_, pieces_;
};

}  // namespace sluice::kernels::pairs24
