// What the consumers of the fused product on sm_90a (sm90_pipeline.cuh) do: matrix products, and the sums of
// row blocks, which several thread blocks may share. For *.cu files only.
#pragma once

#include <type_traits>

#include "kernels/device/cuda/launch_kernel.cuh"
#include "kernels/format/cuda/fused_epilogue.cuh"
#include "kernels/format/cuda/sm90_results.cuh"
#include "kernels/format/cuda/sm90_shape.cuh"
#include "kernels/format/cuda/sm90_wgmma.cuh"

namespace sluice::kernels::sm90 {

/// Adds up what several runs have of a row block, in the order of runs, which is that of columns, and
/// finishes it. By the extractors' threads.
template <class S, class T>
__device__ void finish_shared(const ProductParams& p, int row_block, const Contributors& them) {
  constexpr int kVectors = S::kConsumers * S::kVectors * 128;
  constexpr int kAtOnce = 6;
  const int count = them.count;
  for (int i = static_cast<int>(threadIdx.x) - S::kConsumerThreads; i < kVectors; i += S::kExtractorThreads) {
    float4 sum = {0, 0, 0, 0};
#pragma unroll 1
    for (int first = 0; first < count; first += kAtOnce) {
      float4 parts[kAtOnce] = {};
#pragma unroll
      for (int c = 0; c < kAtOnce; ++c) {
        if (first + c >= count) continue;
        parts[c] = __ldcg(p.exchange.sums + std::int64_t{them.places[first + c]} * kVectors + i);
      }
#pragma unroll
      for (const float4& part : parts) add_to(sum, part);
    }
    write_sums<T, S>(p.result, row_block, i / 128 / S::kVectors, i / 128 % S::kVectors, i % 128, sum);
  }
}

template <class Format, class S, bool kBf16>
class Consumer {
 public:
  using T = std::conditional_t<kBf16, __nv_bfloat16, __half>;

  __device__ Consumer(const ProductParams& p, const Work& work, const SharedMemory<S>& shared, int warp)
      : p_(p), range_(work.range), num_groups_(work.num_groups), shared_(shared), warpgroup_(warp / 4) {}

  __device__ void run() {
    find_contributors();
    wait_for_kernels_before();
    const int per_row = p_.stored.tiles_per_row;
    const int lane = threadIdx.x % 32;
    const int num_units = range_.last - range_.first;
    int column = range_.first % per_row;
    int first_column = column;
    int row_block = range_.first / per_row;
    Cursor stage;
    Cursor buffer;
    for (int i = 0; i < num_units; ++i) {
      barrier_wait(shared_.stage_full(stage.at), stage.parity);
      barrier_wait(shared_.buffer_full(buffer.at), buffer.parity);
      const bool add = column > first_column;
      if constexpr (S::kWarpProducts) {
        if (!add) clear_sums();
        multiply_by_warps(shared_.buffer(buffer.at), shared_.stage(stage.at));
        __syncwarp();
      } else {
        multiply_by_warpgroup(shared_.buffer(buffer.at), shared_.stage(stage.at), add);
      }
      if (lane == 0) {
        barrier_arrive(shared_.buffer_empty(buffer.at));
        barrier_arrive(shared_.stage_empty(stage.at));
      }
      stage.advance(1, S::kStages);
      buffer.advance(1, num_groups_);
      const bool row_block_ends = ++column == per_row;
      if (row_block_ends || i + 1 == num_units) {
        finish(row_block, first_column, column);
        first_column = 0;
      }
      if (row_block_ends) {
        column = 0;
        ++row_block;
      }
    }
    if (threadIdx.x == 0) barrier_arrive(shared_.sums_stored());
  }

 private:
  __device__ void clear_sums() {
#pragma unroll
    for (int i = 0; i < S::kParts * S::kPartSums; ++i) sums_[i / S::kPartSums][i % S::kPartSums] = 0;
  }
  /// All rows of a unit, or those of 64 tokens; the first products replace the sums unless `add_first`.
  __device__ __forceinline__ void multiply_by_warpgroup(SharedAddress buffer, SharedAddress stage,
                                                        bool add_first) {
    const std::uint64_t weights = operand_descriptor(buffer);
    const std::uint64_t tokens = operand_descriptor(stage);
    products_begin();
#pragma unroll
    for (int k = 0; k < kUnitCols / 16; ++k) {
      const bool add = k > 0 || add_first;
#pragma unroll
      for (int s = 0; s < S::kParts; ++s) {
        if constexpr (S::kTokensFirst) {
          product<kBf16>(sums_[s], tokens + static_cast<unsigned>(warpgroup_) * kRowStep + k * kColumnStep,
                         weights + s * 2 * kRowStep + k * kColumnStep, add);
        } else {
          product<kBf16>(sums_[s], weights + s * kRowStep + k * kColumnStep, tokens + k * kColumnStep, add);
        }
      }
    }
    products_commit();
    products_wait<0>();
  }
  /// Each warp 64 rows of a unit.
  __device__ __forceinline__ void multiply_by_warps(SharedAddress buffer, SharedAddress stage) {
    constexpr int kPairs = (S::kTokens + 15) / 16;  // of eight tokens; half of the last one may not exist
    const int lane = threadIdx.x % 32;
    const SharedAddress row = buffer + (threadIdx.x / 32 * 64 + lane % 16) * 128;
    const SharedAddress token = stage + (lane / 16 * 8 % S::kTokens + lane % 8) * 128;
#pragma unroll
    for (int k = 0; k < kUnitCols / 16; ++k) {
      const unsigned row_chunk = ((2 * k + lane / 16) ^ (lane % 8)) * 16;
      const unsigned token_chunk = ((2 * k + lane / 8 % 2) ^ (lane % 8)) * 16;
      std::uint32_t b[kPairs][4];
#pragma unroll
      for (int t = 0; t < kPairs; ++t) load_matrices(b[t], token + t * 16 * 128 + token_chunk);
#pragma unroll
      for (int s = 0; s < S::kParts; ++s) {
        std::uint32_t a[4];
        load_matrices(a, row + s * 16 * 128 + row_chunk);
#pragma unroll
        for (int t = 0; t < S::kTokens / 8; ++t) {
          multiply_add<T>(sums_[s] + 4 * t, a, b[t / 2][t % 2 * 2], b[t / 2][t % 2 * 2 + 1]);
        }
      }
    }
  }

  /// Of the first and the last row block of the run, where others have a part of them.
  __device__ void find_contributors() {
    const int per_row = p_.stored.tiles_per_row;
    Contributors* const both = shared_.contributors();
    constexpr int kWords = kMaxBlocks / 32;
    if (threadIdx.x < 2 * kWords) both[threadIdx.x / kWords].set[threadIdx.x % kWords] = 0;
    sync_threads<S::kConsumerThreads>(kBarrier);
    const Partition<Format> partition(p_.stored, static_cast<int>(gridDim.x));
#pragma unroll 1
    for (int end = 0; end < 2; ++end) {
      const int unit = end == 0 ? range_.first : range_.last;
      if (unit % per_row == 0) continue;
      const int first = unit / per_row * per_row;
      for (int k = static_cast<int>(threadIdx.x); k < per_row; k += S::kConsumerThreads) {
        const int run = partition.run_of(first + k);
        atomicOr(&both[end].set[run / 32], 1U << run % 32);
      }
    }
    sync_threads<S::kConsumerThreads>(kBarrier);
    if (threadIdx.x < 2) {
      Contributors& them = both[threadIdx.x];
      int count = 0;
      for (int word = 0; word < kWords; ++word) {
        for (unsigned bits = them.set[word]; bits != 0; bits &= bits - 1) {
          const int run = word * 32 + __ffs(static_cast<int>(bits)) - 1;
          them.places[count] = static_cast<std::uint16_t>(place(run, count == 0));
          ++count;
        }
      }
      them.count = count;
    }
    sync_threads<S::kConsumerThreads>(kBarrier);
  }

  /// Where a run leaves the sums of a row block that it begins, or that an earlier one does.
  static __device__ int place(int run, bool begins) { return 2 * run + (begins ? 1 : 0); }

  /// The sums of columns [first, last) are in the registers.
  __device__ void finish(int row_block, int first, int last) {
    const int per_row = p_.stored.tiles_per_row;
    const int thread = static_cast<int>(threadIdx.x) % 128;
    const bool begins = first == 0;
    const bool is_whole = last - first == per_row;
    float4* const to =
        p_.exchange.sums +
        (std::int64_t{place(static_cast<int>(blockIdx.x), begins)} * S::kConsumers + warpgroup_) *
            S::kVectors * 128 +
        thread;
#pragma unroll
    for (int i = 0; i < S::kVectors; ++i) {
      const float* from = sums_[i * 4 / S::kPartSums] + i * 4 % S::kPartSums;
      const float4 four = make_float4(from[0], from[1], from[2], from[3]);
      if (is_whole) {
        write_sums<T, S>(p_.result, row_block, warpgroup_, i, thread, four);
      } else {
        __stcg(to + i * 128, four);
      }
    }
    if (is_whole) return;
    sync_threads<S::kConsumerThreads>(kBarrier);
    if (threadIdx.x == 0 &&
        fused::count_to(p_.exchange.counters + row_block, static_cast<unsigned>(last - first),
                        static_cast<unsigned>(per_row)))
      shared_.scratch()->completed[begins ? 1 : 0] = row_block;
  }

  static constexpr int kBarrier = 1 + S::kExtractors;

  const ProductParams& p_;
  const UnitRange range_;
  const int num_groups_;
  const SharedMemory<S>& shared_;
  const int warpgroup_;
  float sums_[S::kParts][S::kPartSums];
};

}  // namespace sluice::kernels::sm90
