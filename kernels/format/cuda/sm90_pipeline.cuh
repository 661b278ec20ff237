// The fused product on sm_90a, y = epilogue(x W^T + bias) + residual with W sparse, for formats whose tiles
// are scattered into shared memory. One persistent block per SM:
//
//   3 producer warps  stored tiles --bulk copies--> slots of a ring
//   1 producer warp   64 columns of x --tensor copies--> stages
//   2 or 3 extractor groups of 4 warps, each with a buffer: slot --scatter--> 256 x 64 dense elements,
//   swizzled 1 or 2 consumer warpgroups: matrix products of buffer and stage, sums in registers
//
// The grid shares the units (sm90_partition.cuh); sums of a row block that several blocks work on go through
// memory, and the extractors of the last one to arrive add them in the order of columns. So the order of
// additions depends on the weight and the grid, not on the number of tokens. For *.cu files only.
#pragma once

#include "kernels/format/cuda/sm90_instructions.cuh"
#include "kernels/format/cuda/sm90_partition.cuh"
#include "kernels/format/cuda/sm90_results.cuh"
#include "kernels/format/cuda/sm90_wgmma.cuh"

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

/// The blocks that share a row block, and where their sums are.
struct Contributors {
  BlockSet set;
  int count;
  std::uint16_t slots[kMaxBlocks];
};

/// To ask for a unit takes longer than a small unit takes, so several warps do.
inline constexpr int kWeightWarps = 3;

struct Scratch {
  int below[2];          ///< find_range
  int largest;           ///< size of a unit, in units of 16 bytes
  int last_arrivals[2];  ///< row blocks that this block completed, of its first and its last; -1: none
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
  static constexpr bool kMovesRegisters = kTokens >= 64;
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
  static constexpr int kNumBarriers = 2 * kSlots + 2 * kStages + 2 * kExtractors + 1;
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
    fence_barrier_init();
  }
};

/// What all threads know of the block's work. Slots are as large as its largest unit. A wait for a phase of a
/// barrier must not begin more than one phase ahead of it. Extractor group g takes unit i after the consumers
/// had i - 3, so with three groups i - num_slots must be among those; and one weight warp asks for i when i -
/// 3
/// - num_slots has left its slot, and so all units up to three ahead of that one, of which i - 2 num_slots
/// must be one. With fewer slots than that, one group and one warp do all the work.
struct Work {
  UnitRange range;
  int num_slots, slot_bytes;
  int num_groups, num_weight_warps;

  __device__ int num_units() const { return range.last - range.first; }
};

/// For all threads.
template <class Format, class S>
__device__ Work plan_work(const StoredTiles& stored, const SharedMemory<S>& shared) {
  Scratch* scratch = shared.scratch();
  if (threadIdx.x == 0) {
    scratch->largest = 1;
    scratch->last_arrivals[0] = scratch->last_arrivals[1] = -1;
  }
  if (threadIdx.x == S::kThreads - 1) shared.init_barriers();
  const UnitRange range =
      find_range<Format>(stored, static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x), scratch->below);
  int largest = 0;
  for (int u = range.first + static_cast<int>(threadIdx.x); u < range.last; u += S::kThreads) {
    const UnitSource unit = Format::locate(stored, u);
    largest = max(largest, static_cast<int>(unit.size[0] + unit.size[1]));
  }
  largest = __reduce_max_sync(0xFFFFFFFFU, largest);
  if (threadIdx.x % 32 == 0 && largest > 0) atomicMax(&scratch->largest, largest);
  __syncthreads();
  const int slot_bytes = (scratch->largest * 16 + 127) / 128 * 128;
  const int num_slots = min(S::kSlots, S::kRingBytes / slot_bytes);
  return {range, num_slots, slot_bytes, num_slots >= 3 ? S::kExtractors : 1,
          num_slots >= kWeightWarps + 3 ? kWeightWarps : 1};
}

/// Every num_weight_warps-th unit, by one thread.
template <class Format, class S>
__device__ void copy_weights(const StoredTiles& stored, const Work& work, int warp,
                             const SharedMemory<S>& shared) {
  const std::uint64_t policy = evict_first_policy();
  const int num_units = work.num_units();
  const int stride = work.num_weight_warps;
  if (warp >= min(num_units, stride)) return;
  UnitSource next = Format::locate(stored, work.range.first + warp);
  Cursor slot;
  slot.advance(warp, work.num_slots);
  for (int i = warp; i < num_units; i += stride) {
    const UnitSource unit = next;
    next = Format::locate(stored, min(work.range.first + i + stride, work.range.last - 1));
    barrier_wait(shared.slot_empty(slot.at), slot.parity ^ 1);
    const std::uint32_t bytes[2] = {unit.size[0] * 16, unit.size[1] * 16};
    *shared.sizes(slot.at) = {bytes[0], bytes[1]};
    const SharedAddress full = shared.slot_full(slot.at);
    barrier_arrive_expect(full, bytes[0] + bytes[1]);
    const SharedAddress to = shared.slot(slot.at, work.slot_bytes);
    if (bytes[0] > 0)
      bulk_copy(to, stored.tiles + std::uint64_t{16} * unit.offset[0], bytes[0], full, policy);
    if (bytes[1] > 0)
      bulk_copy(to + bytes[0], stored.tiles + std::uint64_t{16} * unit.offset[1], bytes[1], full, policy);
    slot.advance(stride, work.num_slots);
  }
}

/// By one thread.
template <class S>
__device__ void copy_activations(const StoredTiles& stored, const CUtensorMap* x, const Work& work,
                                 const SharedMemory<S>& shared) {
  wait_for_kernel_ahead();
  int column = work.range.first % stored.tiles_per_row;
  Cursor stage;
  for (int i = 0; i < work.num_units(); ++i) {
    barrier_wait(shared.stage_empty(stage.at), stage.parity ^ 1);
    const SharedAddress full = shared.stage_full(stage.at);
    barrier_arrive_expect(full, S::kStageBytes);
    tensor_copy(shared.stage(stage.at), x, column * kUnitCols, 0, full);
    stage.advance(1, S::kStages);
    if (++column == stored.tiles_per_row) column = 0;
  }
}

/// Unpacks every num_groups-th unit into the group's buffer.
template <class Format, class S>
__device__ void extract(const Work& work, int group, const SharedMemory<S>& shared) {
  const int lane = threadIdx.x % 32;
  if (group >= work.num_groups) return;
  typename Format::Extractor extractor(threadIdx.x % 128, shared.buffer(group));
  Cursor slot;
  slot.advance(group, work.num_slots);
  std::uint32_t parity = 1;
  for (int i = group; i < work.num_units(); i += work.num_groups, parity ^= 1) {
    barrier_wait(shared.buffer_empty(group), parity);
    extractor.clear();
    sync_threads<128>(1 + group);  // a zero may lie where another thread stores a value
    barrier_wait(shared.slot_full(slot.at), slot.parity);
    extractor.unpack(shared.slot(slot.at, work.slot_bytes), *shared.sizes(slot.at));
    if constexpr (!S::kWarpProducts) fence_for_async_reads();
    __syncwarp();
    if (lane == 0) {
      barrier_arrive(shared.buffer_full(group));
      barrier_arrive(shared.slot_empty(slot.at));
    }
    slot.advance(work.num_groups, work.num_slots);
  }
}

/// Adds up what several blocks have of a row block, in the order of blocks, which is that of columns, and
/// finishes it. By the extractors' threads.
template <class S, class T>
__device__ void finish_shared(const ProductParams& p, int row_block, const Contributors& them) {
  constexpr int kVectors = S::kConsumers * S::kVectors * 128;
  constexpr int kAtOnce = 6;
  const int count = them.count;
  for (int i = static_cast<int>(threadIdx.x) - S::kConsumerThreads; i < kVectors; i += S::kExtractorThreads) {
    float4 sum = {0, 0, 0, 0};
    for (int first = 0; first < count; first += kAtOnce) {
      float4 parts[kAtOnce];
#pragma unroll
      for (int c = 0; c < kAtOnce; ++c) {
        const std::int64_t slot = them.slots[min(first + c, count - 1)];
        parts[c] = __ldcg(p.partials.sums + slot * kVectors + i);
      }
#pragma unroll
      for (int c = 0; c < kAtOnce; ++c) {
        if (first + c >= count) continue;
        sum.x += parts[c].x;
        sum.y += parts[c].y;
        sum.z += parts[c].z;
        sum.w += parts[c].w;
      }
    }
    write_sums<T, S>(p.result, row_block, i / 128 / S::kVectors, i / 128 % S::kVectors, i % 128, sum);
  }
}

template <class Format, class S, bool kBf16>
class Consumer {
 public:
  using T = std::conditional_t<kBf16, __nv_bfloat16, __half>;

  __device__ Consumer(const ProductParams& p, const Work& work, const SharedMemory<S>& shared)
      : p_(p),
        range_(work.range),
        num_groups_(work.num_groups),
        shared_(shared),
        warpgroup_(static_cast<int>(threadIdx.x) / 128) {}

  __device__ void run() {
    find_contributors();
    wait_for_kernel_ahead();
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
      uint4 b[kPairs];
#pragma unroll
      for (int t = 0; t < kPairs; ++t) b[t] = load_matrices(token + t * 16 * 128 + token_chunk);
#pragma unroll
      for (int s = 0; s < S::kParts; ++s) {
        const uint4 a = load_matrices(row + s * 16 * 128 + row_chunk);
#pragma unroll
        for (int t = 0; t < S::kTokens / 8; ++t) {
          const uint4& pair = b[t / 2];
          warp_product<kBf16>(sums_[s] + 4 * t, a, t % 2 == 0 ? pair.x : pair.z,
                              t % 2 == 0 ? pair.y : pair.w);
        }
      }
    }
  }

  /// Of the first and the last row block of this block.
  __device__ void find_contributors() {
    const int per_row = p_.stored.tiles_per_row;
    Contributors* both = shared_.contributors();
    constexpr int kWords = kMaxBlocks / 32;
    if (threadIdx.x < 2 * kWords) both[threadIdx.x / kWords].set[threadIdx.x % kWords] = 0;
    sync_threads<S::kConsumerThreads>(kBarrier);
    const Partition<Format> partition(p_.stored, static_cast<int>(gridDim.x));
    for (int end = 0; end < 2; ++end) {
      const int unit = end == 0 ? range_.first : range_.last;
      if (unit % per_row == 0) continue;
      const int first = unit / per_row * per_row;
      for (int k = static_cast<int>(threadIdx.x); k < per_row; k += S::kConsumerThreads) {
        const int block = partition.block_of(first + k);
        atomicOr(&both[end].set[block / 32], 1U << block % 32);
      }
    }
    sync_threads<S::kConsumerThreads>(kBarrier);
    if (threadIdx.x < 2) {
      Contributors& them = both[threadIdx.x];
      int count = 0;
      for (int word = 0; word < kWords; ++word) {
        for (unsigned bits = them.set[word]; bits != 0; bits &= bits - 1) {
          const int block = word * 32 + __ffs(static_cast<int>(bits)) - 1;
          them.slots[count] = static_cast<std::uint16_t>(2 * block + (count == 0 ? 1 : 0));
          ++count;
        }
      }
      them.count = count;
    }
    sync_threads<S::kConsumerThreads>(kBarrier);
  }

  /// The sums of columns [first, last) are in the registers. Block b stores those of a row block that others
  /// begin in slot 2 b, and those of one that it begins in slot 2 b + 1.
  __device__ void finish(int row_block, int first, int last) {
    const int per_row = p_.stored.tiles_per_row;
    const int thread = static_cast<int>(threadIdx.x) % 128;
    const bool is_whole = last - first == per_row;
    const auto slot = static_cast<std::int64_t>(2 * blockIdx.x) + (first == 0 ? 1 : 0);
    float4* to = p_.partials.sums + (slot * S::kConsumers + warpgroup_) * S::kVectors * 128 + thread;
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
    if (threadIdx.x == 0) {
      fence_device();
      if (arrive(p_.partials.arrivals + row_block, p_.partials.launch, last - first, per_row))
        shared_.scratch()->last_arrivals[first == 0 ? 1 : 0] = row_block;
      fence_device();
    }
  }

  static constexpr int kBarrier = 1 + S::kExtractors;

  const ProductParams& p_;
  const UnitRange range_;
  const int num_groups_;
  const SharedMemory<S>& shared_;
  const int warpgroup_;
  float sums_[S::kParts][S::kPartSums];
};

template <class Format, class S, bool kBf16>
__global__ void __launch_bounds__(S::kThreads, 1)
    product_kernel(const __grid_constant__ ProductParams p, const __grid_constant__ CUtensorMap x) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) unsigned char memory[];
  const SharedMemory<S> shared(memory);
  launch_dependents();
  const Work work = plan_work<Format>(p.stored, shared);
  if (work.num_units() == 0) return;

  const int thread = static_cast<int>(threadIdx.x);
  if (thread < S::kConsumerThreads) {
    if constexpr (S::kMovesRegisters) take_registers<S::kConsumerRegisters>();
    Consumer<Format, S, kBf16>(p, work, shared).run();
  } else if (thread < S::kConsumerThreads + S::kExtractorThreads) {
    if constexpr (S::kMovesRegisters) give_registers<S::kExtractorRegisters>();
    extract<Format>(work, (thread - S::kConsumerThreads) / 128, shared);
    barrier_wait(shared.sums_stored(), 0);
    wait_for_kernel_ahead();
    for (int end = 0; end < 2; ++end) {
      const int row_block = shared.scratch()->last_arrivals[end];
      if (row_block >= 0) {
        finish_shared<S, typename Consumer<Format, S, kBf16>::T>(p, row_block, shared.contributors()[end]);
      }
    }
  } else {
    if constexpr (S::kMovesRegisters) give_registers<S::kProducerRegisters>();
    const int warp = (thread - S::kConsumerThreads - S::kExtractorThreads) / 32;
    if (thread % 32 == 0) {
      if (warp < kWeightWarps) {
        copy_weights<Format>(p.stored, work, warp, shared);
      } else {
        copy_activations(p.stored, &x, work, shared);
      }
    }
  }
#else
  __trap();
#endif
}

}  // namespace sluice::kernels::sm90
