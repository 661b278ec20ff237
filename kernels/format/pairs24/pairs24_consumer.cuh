// What the warpgroups of the fused product of pairs24 (pairs24_product.cuh) do: words of a unit to registers,
// matrix products, and the sums of tiles, which several runs may share. For *.cu files only.
#pragma once

#include <cstddef>

#include "kernels/format/cuda/sm90_shape.cuh"
#include "kernels/format/cuda/sm90_wgmma_sparse.cuh"
#include "kernels/format/pairs24/pairs24_shape.cuh"

namespace sluice::kernels::pairs24 {

/// A lane's words of a unit, in the order of FORMAT.md. The unit is in shared memory. kSkipsLeft: where no
/// lane of the warp has anything left in a step, it does not look for it.
template <bool kSkipsLeft>
class LaneWords {
 public:
  __device__ LaneWords(SharedAddress unit, int strip, int lane) {
    const SharedAddress fixed = unit + offsetof(PairsHead, strips) + strip * sizeof(PairsStrip);
    const SharedAddress lists = unit + load_shared_4(unit + 4 * strip);
    has_pair_ = load_shared_4(fixed + offsetof(PairsStrip, pairs) + 4 * lane);
    has_left_ = load_shared_4(fixed + offsetof(PairsStrip, left) + 4 * lane);
    const std::uint32_t jump = load_half_word(fixed + offsetof(PairsStrip, jumps) + 2 * lane);
    const uint4 metadata = load_shared_16(fixed + offsetof(PairsStrip, metadata) + 16 * lane);
    metadata_[0] = metadata.x;
    metadata_[1] = metadata.y;
    metadata_[2] = metadata.z;
    metadata_[3] = metadata.w;
    at_ = lists + 4 * lane + (jump >> 3 & 3) * kPairsListStride;
    jump_step_ = static_cast<int>(jump & 7);
    jump_target_ = lists + (jump >> 5) * 4;
    if constexpr (kSkipsLeft) warp_has_left_ = __reduce_or_sync(0xFFFFFFFFU, has_left_);
  }
  __device__ std::uint32_t metadata(int step) const { return metadata_[step / 2]; }

  /// The words of a step, zeros where none is stored. Steps from 0 on, one after the other.
  __device__ __forceinline__ void load(int step, const std::uint32_t (&steps)[8], std::uint32_t (&pairs)[4],
                                       std::uint32_t (&left)[4]) {
    if (step == jump_step_) at_ = jump_target_;
    const int byte = step / 2 * 8;
    const int bit = step % 2 * 4;
#pragma unroll
    for (std::uint32_t& word : pairs) word = 0;
#pragma unroll
    for (int r = 0; r < 4; ++r) take(pairs[r], has_pair_ >> byte, bit + r, steps[bit + r]);
#pragma unroll
    for (std::uint32_t& word : left) word = 0;
    if (kSkipsLeft && (warp_has_left_ >> 4 * step & 0xFU) == 0) return;
#pragma unroll
    for (int r = 0; r < 4; ++r) take(left[r], has_left_ >> byte, bit + r, steps[bit + r]);
  }

 private:
  static __device__ __forceinline__ std::uint32_t load_half_word(SharedAddress from) {
    std::uint32_t value;
    asm volatile("{\n.reg .b16 half;\nld.shared.b16 half, [%1];\ncvt.u32.u16 %0, half;\n}"
                 : "=r"(value)
                 : "r"(from)
                 : "memory");
    return value;
  }
  /// The next word if bit `bit` of `has` is set. `factor` moves that bit to 128, the step of the list.
  __device__ __forceinline__ void take(std::uint32_t& word, std::uint32_t has, int bit,
                                       std::uint32_t factor) {
    static_assert(kPairsListStride == 128);
    const std::uint32_t set = has & 1U << bit;
    asm volatile("{\n.reg .pred stored;\nsetp.ne.u32 stored, %2, 0;\n@stored ld.shared.b32 %0, [%1];\n}"
                 : "+r"(word)
                 : "r"(at_), "r"(set));
    asm("mad.lo.u32 %0, %1, %2, %0;" : "+r"(at_) : "r"(set), "r"(factor));
  }

  std::uint32_t has_pair_, has_left_, warp_has_left_ = 0, metadata_[4];
  SharedAddress at_, jump_target_;
  int jump_step_;
};

template <class S, bool kBf16>
class Consumer {
 public:
  __device__ Consumer(const Product& p, const Rings<S>& rings, SharedAddress base)
      : p_(p), rings_(rings), base_(base), warp_(static_cast<int>(threadIdx.x) / 32) {}

  /// Runs [first, last).
  __device__ void multiply_runs(int first, int last) {
    const int per_tile = p_.work.per_tile;
    for (int run = first; run < last; ++run) {
      const int end = p_.work.first_unit(run + 1);
      for (int unit = p_.work.first_unit(run); unit < end;) {
        const int tile = unit / per_tile;
        const int count = min((tile + 1) * per_tile, end) - unit;
        if (p_.has_rows(tile, warp_ / 4)) {
          multiply(count);
          finish(run, tile);
        } else {
          skip(count);
        }
        unit += count;
      }
    }
  }

 private:
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
    SharedAddress in_use = 0;  // a piece's barrier whose products may still run
    for (int i = 0; i < units; ++i) {
      const int warpgroup = warp_ / 4;
      sm90::barrier_wait(Rings<S>::slot_full(base_, warpgroup, slot_.at), slot_.parity);
      LaneWords<S::kSkipsLeft> words(rings_.slot(warpgroup, slot_.at), warp_ % 4,
                                     static_cast<int>(threadIdx.x) % 32);
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
          sm90::sparse_product<kBf16, 0>(sums_, left[t], rows, kLeftMetadata);
        }
        sm90::products_commit();
        // All words are in registers.
        if (batch == kBatches - 1) release(Rings<S>::slot_empty(base_, warpgroup, slot_.at));
        sm90::products_wait<1>();
        if (batch % kPieceBatches == 0 && in_use != 0) release(in_use);
        if (batch % kPieceBatches == kPieceBatches - 1) {
          in_use = Rings<S>::piece_empty(base_, piece_.at);
          piece_.advance(1, rings_.pieces());
        }
      }
      slot_.advance(1, rings_.stages());
    }
    sm90::products_wait<0>();
    release(in_use);
  }

  /// The sums are those of the run's units of the tile.
  __device__ void finish(int run, int tile) {
    float4 sums[S::kTokens / 8];
#pragma unroll
    for (int i = 0; i < S::kTokens / 8; ++i) {
      asm volatile(""
                   : "+f"(sums_[4 * i]), "+f"(sums_[4 * i + 1]), "+f"(sums_[4 * i + 2]),
                     "+f"(sums_[4 * i + 3]));
      sums[i] = make_float4(sums_[4 * i], sums_[4 * i + 1], sums_[4 * i + 2], sums_[4 * i + 3]);
    }
    sm90::wait_for_kernel_ahead();
    fused::finish_fragments<1, S::kTokens / 8>(p_.work, p_.exchange, tile, warp_, kTileWarps,
                                               tile * kTileRows + warp_ * kPairsStripRows, p_.out, sums, run);
  }

  const Product& p_;
  const Rings<S>& rings_;
  const SharedAddress base_;
  const int warp_;
  sm90::Cursor slot_, piece_;
  float sums_[S::kTokens / 2];
  // Two sets of words: one is loaded while the products of the other one run.
  std::uint32_t pairs_[2][S::kStepsAtOnce][4], left_[2][S::kStepsAtOnce][4];
};

}  // namespace sluice::kernels::pairs24
