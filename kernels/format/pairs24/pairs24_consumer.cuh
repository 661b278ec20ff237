// What the warpgroups of the fused product of pairs24 (pairs24_product.cuh) do: words of a unit to registers,
// matrix products, and the sums of tiles, which several runs may share. For *.cu files only.
#pragma once

#include "kernels/device/cuda/launch_kernel.cuh"
#include "kernels/format/cuda/sm90_shape.cuh"
#include "kernels/format/cuda/sm90_wgmma_sparse.cuh"
#include "kernels/format/pairs24/pairs24_shape.cuh"
#include "kernels/format/pairs24/pairs24_words.cuh"

namespace sluice::kernels::pairs24 {

template <class S, bool kBf16>
class Consumer {
 public:
  __device__ Consumer(const Product& p, const Rings<S>& rings, SharedAddress base, int warp)
      : p_(p), rings_(rings), base_(base), warp_(warp) {}

  /// The block's run: units [first, last) of the division.
  __device__ void multiply_run(int first, int last) {
    const int per_tile = p_.work.per_tile;
    for (int unit = first; unit < last;) {
      const int tile = unit / per_tile;
      const int count = min((tile + 1) * per_tile, last) - unit;
      if (p_.has_rows<S>(tile, warp_ / 4)) {
        multiply(count);
        finish(tile);
      } else {
        skip(count);
      }
      unit += count;
    }
  }

 private:
  using Element = std::conditional_t<kBf16, __nv_bfloat16, __half>;
  static constexpr int kBatches = kPairsSteps / S::kStepsAtOnce;
  static constexpr int kPieceBatches = S::kPieceSteps / S::kStepsAtOnce;

  /// By whole warps.
  static __device__ __forceinline__ void release(SharedAddress barrier) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) sm90::barrier_arrive(barrier);
  }
  __device__ void wait_for_piece() const {
    sm90::barrier_wait(Rings<S>::piece_full(base_, piece_.at), piece_.parity);
  }

  /// Passes by x of units of a tile that has no rows for this warpgroup.
  __device__ void skip(int units) {
    for (int i = 0; i < units * S::kPieces; ++i) {
      wait_for_piece();
      release(Rings<S>::piece_empty(base_, piece_.at));
      piece_.advance(1, rings_.pieces());
    }
  }

  /// The sums of so many units of a tile.
  __device__ void multiply(int units) {
#pragma unroll
    for (float& sum : sums_) sum = 0;
    for (int i = 0; i < units; ++i) {
      const int warpgroup = warp_ / 4;
      sm90::barrier_wait(Rings<S>::slot_full(base_, warpgroup, slot_.at), slot_.parity);
      const SharedAddress unit = rings_.slot(warpgroup, slot_.at);
      const PairsStart start = PairsStart::unpack(sm90::as_uniform(load_shared_4(unit + 4 * (warp_ % 4))));
      if (start.left() == PairsLeft::kMasks) {
        multiply_lists<PairsLeft::kMasks>(unit, start);
      } else {
        const sm90::Cursor first_piece = piece_;
        multiply_lists<PairsLeft::kEntries>(unit, start);
        sm90::products_wait<0>();
        multiply_entries(unit, start, first_piece);
        release_slot();
        release_pieces(first_piece);
      }
      slot_.advance(1, rings_.stages());
    }
    sm90::products_wait<0>();
    if (in_use_ != 0) release(in_use_);
    in_use_ = 0;
  }

  /// The words of the unit's lists by x. With masks the last products may still run at the end, and the piece
  /// that they read is in_use_; without, all of the unit's pieces are, and its slot.
  template <PairsLeft kLeft>
  __device__ __forceinline__ void multiply_lists(SharedAddress unit, const PairsStart& start) {
    LaneWords<kLeft> words(unit, start, warp_ % 4, static_cast<int>(threadIdx.x) % 32);
    std::uint32_t x = 0;
#pragma unroll
    for (int batch = 0; batch < kBatches; ++batch) {
      auto& pairs = pairs_[batch % 2];
      auto& left = left_[batch % 2];
#pragma unroll
      for (int t = 0; t < S::kStepsAtOnce; ++t)
        words.load(batch * S::kStepsAtOnce + t, p_.steps, pairs[t], left[t]);
      if (batch % kPieceBatches == 0) {
        wait_for_piece();
        x = sm90::sparse_operand(rings_.piece(piece_.at));
      }
      sm90::products_begin();
#pragma unroll
      for (int t = 0; t < S::kStepsAtOnce; ++t) {
        constexpr std::uint32_t kLeftMetadata = 0x44444444;  // columns 0 and 1 of every four
        const int step = batch * S::kStepsAtOnce + t;
        const int of_piece = step % S::kPieceSteps;
        const std::uint32_t rows =
            x + of_piece / 2 * (S::kBoxBytes / 16) + of_piece % 2 * sm90::kSparseColumnStep;
        if (step % 2 == 0) {
          sm90::sparse_product<kBf16, 0>(sums_, pairs[t], rows, words.metadata(step));
        } else {
          sm90::sparse_product<kBf16, 1>(sums_, pairs[t], rows, words.metadata(step));
        }
        if constexpr (kLeft == PairsLeft::kMasks)
          sm90::sparse_product<kBf16, 0>(sums_, left[t], rows, kLeftMetadata);
      }
      sm90::products_commit();
      // All words are in registers.
      if (kLeft == PairsLeft::kMasks && batch == kBatches - 1) release_slot();
      sm90::products_wait<1>();
      if (batch % kPieceBatches == 0 && in_use_ != 0) {
        release(in_use_);
        in_use_ = 0;
      }
      if (batch % kPieceBatches == kPieceBatches - 1) {
        if constexpr (kLeft == PairsLeft::kMasks) in_use_ = Rings<S>::piece_empty(base_, piece_.at);
        piece_.advance(1, rings_.pieces());
      }
    }
  }

  /// The entries of the warp's strip by their columns of x, which are in the pieces from `first_piece` on:
  /// one product for kEntriesAtOnce of them, whatever their columns. No product of a warpgroup is under way.
  __device__ __forceinline__ void multiply_entries(SharedAddress unit, const PairsStart& start,
                                                   const sm90::Cursor& first_piece) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const SharedAddress entries = unit + entries_at(unit, warp_ % 4);
#pragma unroll 1
    for (int first = 0; first < static_cast<int>(start.entries); first += kEntriesAtOnce) {
      const int mine = first + lane % 4 * 2;
      uint2 two = {0, 0};
      if (mine < static_cast<int>(start.entries)) two = load_shared_8(entries + 4 * mine);
      std::uint32_t fragment[2];
      entry_fragment({two.x, two.y}, lane, fragment);
      // Of row lane / 4 of x.
      const SharedAddress low = column_of_x(static_cast<int>(two.x >> 16 & 0xFFU), lane / 4, first_piece);
      const SharedAddress high = column_of_x(static_cast<int>(two.y >> 16 & 0xFFU), lane / 4, first_piece);
#pragma unroll
      for (int tokens = 0; tokens < S::kTokens / 8; ++tokens) {
        const std::uint32_t x =
            sm90::load_half_word(low + tokens * 1024) | sm90::load_half_word(high + tokens * 1024) << 16;
        multiply_add<Element>(sums_ + 4 * tokens, fragment, x);
      }
    }
  }

  /// Of a unit's column, row `row` (0..7) of x; row 8 is 1024 bytes further on.
  __device__ __forceinline__ SharedAddress column_of_x(int col, int row,
                                                       const sm90::Cursor& first_piece) const {
    int piece = first_piece.at + col / S::kPieceCols;
    if (piece >= rings_.pieces()) piece -= rings_.pieces();
    return rings_.piece(piece) + col % S::kPieceCols / 64 * S::kBoxBytes + row * 128 +
           ((col % 64 * 2) ^ (row << 4));
  }

  __device__ __forceinline__ void release_slot() {
    release(Rings<S>::slot_empty(base_, warp_ / 4, slot_.at));
  }
  __device__ __forceinline__ void release_pieces(sm90::Cursor piece) {
#pragma unroll
    for (int i = 0; i < S::kPieces; ++i) {
      release(Rings<S>::piece_empty(base_, piece.at));
      piece.advance(1, rings_.pieces());
    }
  }

  /// The sums are those of the run's units of the tile.
  __device__ void finish(int tile) {
    float4 sums[S::kTokens / 8];
#pragma unroll
    for (int i = 0; i < S::kTokens / 8; ++i) {
      asm volatile(""
                   : "+f"(sums_[4 * i]), "+f"(sums_[4 * i + 1]), "+f"(sums_[4 * i + 2]),
                     "+f"(sums_[4 * i + 3]));
      sums[i] = make_float4(sums_[4 * i], sums_[4 * i + 1], sums_[4 * i + 2], sums_[4 * i + 3]);
    }
    const int row = static_cast<int>(threadIdx.x) % 32 / 4;
    wait_for_kernels_before();
    fused::finish_fragments<true, 1, S::kTokens / 8, 4, 16>(
        p_.work, p_.exchange, tile, warp_, S::kTileWarps, tile * S::kTileRows + warp_ * kPairsStripRows + row,
        p_.out, sums);
  }

  const Product& p_;
  const Rings<S>& rings_;
  const SharedAddress base_;
  const int warp_;
  sm90::Cursor slot_, piece_;
  SharedAddress in_use_ = 0;  // the barrier of a piece whose products may still run; 0: none
  float sums_[S::kTokens / 2];
  // Two sets of words: one is loaded while the products of the other one run.
  std::uint32_t pairs_[2][S::kStepsAtOnce][4], left_[2][S::kStepsAtOnce][4];
};

}  // namespace sluice::kernels::pairs24
