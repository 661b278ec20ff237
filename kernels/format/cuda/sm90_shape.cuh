// The thread block of the fused product on sm_90a (sm90_pipeline.cuh): how many threads of which kind it has,
// what lies where in its shared memory, and what all of them know of its work. For *.cu files only.
#pragma once

#include "kernels/format/cuda/sm90_instructions.cuh"
#include "kernels/format/cuda/sm90_partition.cuh"

namespace sluice::kernels::sm90 {

inline constexpr int kUnitBytes = kUnitRows * kUnitCols * 2;

/// Where the parts of a unit are in `tiles`, in units of 16 bytes; one part, or two of different rows.
struct UnitSource {
  std::uint32_t offset[2], size[2];
};

/// Round and round through slots or stages: which one, and the parity of its barriers' phase.
struct Cursor {
  int at = 0;
  std::uint32_t parity = 0;

  __device__ void advance(int by, int count) {
    for (at += by; at >= count; at -= count) parity ^= 1;
  }
};

/// The runs that share a row block, and the places of their sums.
struct Contributors {
  RunSet set;
  int count;
  std::uint16_t places[kMaxBlocks];
};

/// To ask for a unit takes longer than a small unit takes, so several warps do.
inline constexpr int kWeightWarps = 3;

struct Scratch {
  int below[2];      ///< find_range
  int largest;       ///< size of a unit, in units of 16 bytes
  int completed[2];  ///< the run's first and last row block, if it is the last one to come there; else -1
};

/// The shape of the block for up to kTokens rows of x.
template <int kTokens_>
struct Shape {
  static constexpr int kTokens = kTokens_;
  /// Which side of the matrix product has 64 rows. The other side is read from shared memory once for each 64
  /// of those, so from 64 tokens on they are the tokens, and the other side 128 rows of the weight.
  static constexpr bool kTokensFirst = kTokens >= 64;
  /// Products of a warp's mma.sync, which needs no fence between extractors' stores and its loads.
  static constexpr bool kWarpProducts = kTokens <= 32;
  static constexpr int kConsumers = kTokensFirst ? kTokens / 64 : 1;  ///< warpgroups
  // Of a thread: products of a unit, and their sums.
  static constexpr int kParts = kTokensFirst ? 2 : kUnitRows / 64;
  static constexpr int kPartSums = kTokensFirst ? kUnitRows / 4 : kTokens / 2;
  static constexpr int kVectors = kParts * kPartSums / 4;
  static constexpr int kExtractors = kTokens == 128 ? 2 : 3;  ///< groups of 128 threads
  /// Moves registers to the consumers, once their sums take so many.
  static constexpr bool kMovesRegisters = kTokens >= 32;
  static constexpr int kConsumerThreads = 128 * kConsumers, kExtractorThreads = 128 * kExtractors;
  static constexpr int kThreads = kConsumerThreads + kExtractorThreads + 128;
  // Registers of a thread after they were moved; at launch each of the five warpgroups has 96.
  static constexpr int kConsumerRegisters = kTokens == 128 ? 160 : 208;
  static constexpr int kExtractorRegisters = kTokens == 128 ? 64 : 80, kProducerRegisters = 24;
  static_assert(kConsumers * kConsumerRegisters + kExtractors * kExtractorRegisters + kProducerRegisters <=
                    480 ||
                !kMovesRegisters);
  static constexpr int kStages = kTokens <= 16 ? 16 : kTokens == 32 ? 10 : kTokens == 64 ? 6 : 5;  ///< of x
  static constexpr int kStageBytes = kTokens * kUnitCols * 2;
  static constexpr int kSlots = 16;  ///< units in the ring, at most

  // Shared memory, from a multiple of 1024 on.
  static constexpr int kBuffers = 0;
  static constexpr int kStagesAt = kExtractors * kUnitBytes;
  static constexpr int kBarriers = kStagesAt + kStages * kStageBytes;
  static constexpr int kNumBarriers = 2 * kSlots + 2 * kStages + 2 * kExtractors + 2;
  static constexpr int kSizes = kBarriers + 8 * kNumBarriers;
  static constexpr int kContributors = kSizes + kSlots * static_cast<int>(sizeof(uint2));
  static constexpr int kScratch = kContributors + 2 * static_cast<int>(sizeof(Contributors));
  static constexpr int kRing = (kScratch + static_cast<int>(sizeof(Scratch)) + 127) / 128 * 128;
  static constexpr int kSharedBytes = 227 * 1024;
  static constexpr int kRingBytes = kSharedBytes - kRing;
};

/// Addresses of a block's shared memory.
template <class S>
struct SharedMemory {
  unsigned char* memory;
  SharedAddress base;

  __device__ explicit SharedMemory(unsigned char* from) : memory(from), base(shared_address(from)) {}
  __device__ SharedAddress buffer(int i) const { return base + S::kBuffers + i * kUnitBytes; }
  __device__ SharedAddress stage(int i) const { return base + S::kStagesAt + i * S::kStageBytes; }
  __device__ SharedAddress slot(int i, int bytes) const { return base + S::kRing + i * bytes; }
  /// Bytes of the parts of the unit in a slot.
  __device__ uint2* sizes(int slot) const { return reinterpret_cast<uint2*>(memory + S::kSizes) + slot; }
  /// Of the run's first and last row block.
  __device__ Contributors* contributors() const {
    return reinterpret_cast<Contributors*>(memory + S::kContributors);
  }
  __device__ Scratch* scratch() const { return reinterpret_cast<Scratch*>(memory + S::kScratch); }

  __device__ SharedAddress barrier(int i) const { return base + S::kBarriers + 8 * i; }
  __device__ SharedAddress slot_full(int i) const { return barrier(i); }
  __device__ SharedAddress slot_empty(int i) const { return barrier(S::kSlots + i); }
  __device__ SharedAddress stage_full(int i) const { return barrier(2 * S::kSlots + i); }
  __device__ SharedAddress stage_empty(int i) const { return barrier(2 * S::kSlots + S::kStages + i); }
  __device__ SharedAddress buffer_full(int i) const { return barrier(2 * S::kSlots + 2 * S::kStages + i); }
  __device__ SharedAddress buffer_empty(int i) const {
    return barrier(2 * S::kSlots + 2 * S::kStages + S::kExtractors + i);
  }
  __device__ SharedAddress sums_stored() const { return barrier(S::kNumBarriers - 1); }
  /// Its first phase ends once the kernels before are done.
  __device__ SharedAddress kernels_done() const { return barrier(S::kNumBarriers - 2); }

  __device__ void init_barriers() const {
    for (int i = 0; i < S::kSlots; ++i) {
      barrier_init(slot_full(i), 1);
      barrier_init(slot_empty(i), 4);
    }
    for (int i = 0; i < S::kStages; ++i) {
      barrier_init(stage_full(i), 1);
      barrier_init(stage_empty(i), 4 * S::kConsumers);
    }
    for (int i = 0; i < S::kExtractors; ++i) {
      barrier_init(buffer_full(i), 4);
      barrier_init(buffer_empty(i), 4 * S::kConsumers);
    }
    barrier_init(sums_stored(), 1);
    barrier_init(kernels_done(), 1);
    fence_barrier_init();
  }
};

/// What all threads know of the block's work. Slots are as large as its largest unit. A wait for a phase of a
/// barrier must not begin more than one phase ahead of it. Extractor group g takes unit i after the consumers
/// had i - 3, so with three groups i - num_slots must be among those; and one weight warp asks for i when
/// i - 3 - num_slots has left its slot, and so all units up to three ahead of that one, of which
/// i - 2 num_slots must be one. With fewer slots than that, one group and one warp do all the work.
struct Work {
  UnitRange range;
  int num_slots, slot_bytes;
  int num_groups, num_weight_warps;

  __device__ int num_units() const { return range.last - range.first; }
};

}  // namespace sluice::kernels::sm90
