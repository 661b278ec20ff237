// The fused product on sm_90a, y = epilogue(x W^T + bias) + residual with W sparse, for formats whose tiles
// are scattered into shared memory. One persistent block per SM:
//
//   weights warp      stored tiles --bulk copies--> ring
//   activations warp  64 columns of x --tensor copies--> stages
//   3 extractor groups of 4 warps, each with a buffer: ring --scatter--> 256 x 64 dense elements, swizzled
//   1 or 2 consumer warpgroups: wgmma on buffer and stage, sums in registers
//
// The grid shares the units (sm90_partition.cuh); sums of a row block that several blocks work on go through
// memory, and the last one to arrive adds them in the order of columns. So the order of additions depends on
// the weight and the grid, not on the number of tokens. For *.cu files only.
#pragma once

#include "kernels/format/sm90_instructions.cuh"
#include "kernels/format/sm90_partition.cuh"
#include "kernels/format/sm90_results.cuh"
#include "kernels/format/sm90_wgmma.cuh"

#ifndef SLUICE_SKIP
#define SLUICE_SKIP 0
#endif

namespace sluice::kernels::sm90 {

inline constexpr int kUnitBytes = kUnitRows * kUnitCols * 2;

/// Where the parts of a unit are in `tiles`, in units of 16 bytes; one part, or two of different rows.
struct UnitSource {
  std::uint32_t offset[2], size[2];
};
/// The same in the ring, in bytes: as the weights warp tells the extractors.
struct StagedUnit {
  std::uint32_t offset, size[2], unused;
};

/// The shape of the block for up to kTokens rows of x.
template <int kTokens_>
struct Shape {
  static constexpr int kTokens = kTokens_;
  static constexpr int kConsumers = kTokens >= 64 ? 2 : 1;  ///< warpgroups
  static constexpr int kSlabs = kUnitRows / 64 / kConsumers;  ///< of 64 rows, of one warpgroup
  static constexpr int kExtractors = kTokens == 128 ? 2 : 3;  ///< groups of 128 threads
  /// Moves registers to the consumers, once their sums take so many.
  static constexpr bool kMovesRegisters = kTokens >= 64;
  static constexpr int kConsumerThreads = 128 * kConsumers, kExtractorThreads = 128 * kExtractors;
  static constexpr int kThreads = kConsumerThreads + kExtractorThreads + (kMovesRegisters ? 128 : 64);
  // Registers of a thread after they were moved; four warpgroups have 96 each at launch, five 80.
  static constexpr int kConsumerRegisters = kTokens == 128 ? 160 : 120;
  static constexpr int kExtractorRegisters = kTokens == 128 ? 64 : 72, kProducerRegisters = 24;
  static_assert(kConsumers * kConsumerRegisters + kExtractors * kExtractorRegisters + kProducerRegisters <= 480 ||
                !kMovesRegisters);
  static constexpr int kStages = kTokens <= 32 ? 8 : 4;  ///< of x
  static constexpr int kStageBytes = kTokens * kUnitCols * 2;
  static constexpr int kSlots = 16;  ///< units in the ring, at most

  // Shared memory, from a multiple of 1024 on.
  static constexpr int kBuffers = 0;
  static constexpr int kStagesAt = kExtractors * kUnitBytes;
  static constexpr int kBarriers = kStagesAt + kStages * kStageBytes;
  static constexpr int kNumBarriers = 2 * kSlots + 2 * kStages + 2 * kExtractors;
  static constexpr int kStaged = (kBarriers + 8 * kNumBarriers + 15) / 16 * 16;
  static constexpr int kContributors = kStaged + kSlots * static_cast<int>(sizeof(StagedUnit));
  static constexpr int kScratch = kContributors + 2 * static_cast<int>(sizeof(BlockSet));
  static constexpr int kRing = (kScratch + 16 + 127) / 128 * 128;
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
  __device__ SharedAddress ring(std::uint32_t offset) const { return base + S::kRing + offset; }
  __device__ StagedUnit* staged(int i) const { return reinterpret_cast<StagedUnit*>(memory + S::kStaged) + i; }
  __device__ BlockSet* contributors() const { return reinterpret_cast<BlockSet*>(memory + S::kContributors); }
  __device__ int* scratch() const { return reinterpret_cast<int*>(memory + S::kScratch); }

  __device__ SharedAddress barrier(int i) const { return base + S::kBarriers + 8 * i; }
  __device__ SharedAddress slot_full(int i) const { return barrier(i); }
  __device__ SharedAddress slot_empty(int i) const { return barrier(S::kSlots + i); }
  __device__ SharedAddress stage_full(int i) const { return barrier(2 * S::kSlots + i); }
  __device__ SharedAddress stage_empty(int i) const { return barrier(2 * S::kSlots + S::kStages + i); }
  __device__ SharedAddress buffer_full(int i) const {
    return barrier(2 * S::kSlots + 2 * S::kStages + i);
  }
  __device__ SharedAddress buffer_empty(int i) const {
    return barrier(2 * S::kSlots + 2 * S::kStages + S::kExtractors + i);
  }

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
    fence_barrier_init();
  }
};

/// Keeps the ring full. Units have different sizes: each takes as many bytes as it has, in one piece, in
/// order; `oldest` is the first one that may not have been released.
template <class Format, class S>
__device__ void copy_weights(const StoredTiles& stored, UnitRange range, const SharedMemory<S>& shared) {
  const int lane = threadIdx.x % 32;
  const std::uint64_t policy = evict_first_policy();
  const int num_units = range.last - range.first;
  const auto locate = [&](int i) {
    return Format::locate(stored, min(range.first + i + lane, range.last - 1));
  };
  UnitSource here = locate(0);
  UnitSource next = locate(32);
  std::uint32_t starts = 0;  // lane s: where the unit in slot s is
  std::uint32_t head = 0;
  int oldest = 0;
  for (int i = 0; i < num_units; ++i) {
    if (i % 32 == 0 && i > 0) {
      here = next;
      next = locate(i + 32);
    }
    UnitSource unit;
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      unit.offset[part] = __shfl_sync(0xFFFFFFFFU, here.offset[part], i % 32);
      unit.size[part] = __shfl_sync(0xFFFFFFFFU, here.size[part], i % 32);
    }
    const std::uint32_t bytes = (unit.size[0] + unit.size[1]) * 16;
    const std::uint32_t room = max(bytes, 16U);
    while (true) {
      if (oldest == i) {
        head = 0;
        break;
      }
      if (i - oldest < S::kSlots) {
        const std::uint32_t tail = __shfl_sync(0xFFFFFFFFU, starts, oldest % S::kSlots);
        if (head >= tail) {
          if (head + room <= S::kRingBytes) break;
          if (room < tail) {
            head = 0;
            break;
          }
        } else if (head + room < tail) {
          break;
        }
      }
      barrier_wait(shared.slot_empty(oldest % S::kSlots), oldest / S::kSlots & 1);
      ++oldest;
    }
    const int slot = i % S::kSlots;
    if (lane == slot) starts = head;
    if (lane == 0) {
      *shared.staged(slot) = {head, {unit.size[0] * 16, unit.size[1] * 16}, 0};
#if SLUICE_SKIP & 1
      barrier_arrive(shared.slot_full(slot));
#else
      barrier_arrive_expect(shared.slot_full(slot), bytes);
      SharedAddress to = shared.ring(head);
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        if (unit.size[part] == 0) continue;
        bulk_copy(to, stored.tiles + std::uint64_t{16} * unit.offset[part], unit.size[part] * 16,
                  shared.slot_full(slot), policy);
        to += unit.size[part] * 16;
      }
#endif
    }
    __syncwarp();
    head += room;
  }
}

template <class S>
__device__ void copy_activations(const StoredTiles& stored, const CUtensorMap* x, UnitRange range,
                                 const SharedMemory<S>& shared) {
  if (threadIdx.x % 32 != 0) return;
  int column = range.first % stored.tiles_per_row;
  for (int i = 0; i < range.last - range.first; ++i) {
    const int stage = i % S::kStages;
    barrier_wait(shared.stage_empty(stage), (i / S::kStages & 1) ^ 1);
    barrier_arrive_expect(shared.stage_full(stage), S::kStageBytes);
    tensor_copy(shared.stage(stage), x, column * kUnitCols, 0, shared.stage_full(stage));
    if (++column == stored.tiles_per_row) column = 0;
  }
}

/// Unpacks every kExtractors-th unit into the group's buffer.
template <class Format, class S>
__device__ void extract(UnitRange range, int group, const SharedMemory<S>& shared) {
  const int lane = threadIdx.x % 32;
  typename Format::Extractor extractor(threadIdx.x % 128, shared.buffer(group));
  for (int i = group; i < range.last - range.first; i += S::kExtractors) {
    barrier_wait(shared.buffer_empty(group), (i / S::kExtractors & 1) ^ 1);
    extractor.clear();
    sync_threads<128>(1 + group);  // a zero may lie where another thread stores a value
    const int slot = i % S::kSlots;
    barrier_wait(shared.slot_full(slot), i / S::kSlots & 1);
    const StagedUnit unit = *shared.staged(slot);
    extractor.unpack(shared.ring(unit.offset), unit);
    fence_for_async_reads();
    __syncwarp();
    if (lane == 0) {
      barrier_arrive(shared.buffer_full(group));
      barrier_arrive(shared.slot_empty(slot));
    }
  }
}

template <class Format, class S, bool kBf16>
class Consumer {
 public:
  using T = std::conditional_t<kBf16, __nv_bfloat16, __half>;

  __device__ Consumer(const ProductParams& p, UnitRange range, const SharedMemory<S>& shared)
      : p_(p), range_(range), shared_(shared), warpgroup_(static_cast<int>(threadIdx.x) / 128) {}

  __device__ void run() {
    find_contributors();
    const int per_row = p_.stored.tiles_per_row;
    const int lane = threadIdx.x % 32;
    int column = range_.first % per_row;
    int first_column = column;
    int row_block = range_.first / per_row;
    for (int i = 0; i < range_.last - range_.first; ++i) {
      const int group = i % S::kExtractors;
      const int stage = i % S::kStages;
      barrier_wait(shared_.stage_full(stage), i / S::kStages & 1);
      barrier_wait(shared_.buffer_full(group), i / S::kExtractors & 1);
      const std::uint64_t weights =
          operand_descriptor(shared_.buffer(group)) + static_cast<unsigned>(warpgroup_ * S::kSlabs) * kRowStep;
      const std::uint64_t activations = operand_descriptor(shared_.stage(stage));
      products_begin();
#if !(SLUICE_SKIP & 4)
#pragma unroll
      for (int k = 0; k < kUnitCols / 16; ++k) {
#pragma unroll
        for (int s = 0; s < S::kSlabs; ++s) {
          product<kBf16>(sums_[s], weights + s * kRowStep + k * kColumnStep, activations + k * kColumnStep,
                         k > 0 || column > first_column);
        }
      }
#endif
      products_commit();
      products_wait<0>();
      if (lane == 0) {
        barrier_arrive(shared_.buffer_empty(group));
        barrier_arrive(shared_.stage_empty(stage));
      }
      const bool row_block_ends = ++column == per_row;
      if (row_block_ends || i + 1 == range_.last - range_.first) {
        finish(row_block, first_column, column);
        first_column = 0;
      }
      if (row_block_ends) {
        column = 0;
        ++row_block;
      }
    }
  }

 private:
  static constexpr int kVectors = S::kTokens / 8;  // of 4 sums, of a thread and slab

  /// The blocks that share the first and the last row block of this one.
  __device__ void find_contributors() {
    const int per_row = p_.stored.tiles_per_row;
    BlockSet* sets = shared_.contributors();
    if (threadIdx.x < 2 * kMaxBlocks / 32) sets[threadIdx.x / (kMaxBlocks / 32)][threadIdx.x % (kMaxBlocks / 32)] = 0;
    sync_threads<S::kConsumerThreads>(kBarrier);
    const Partition<Format> partition(p_.stored, static_cast<int>(gridDim.x));
    for (int end = 0; end < 2; ++end) {
      const int unit = end == 0 ? range_.first : range_.last;
      if (unit % per_row == 0) continue;
      const int first = unit / per_row * per_row;
      for (int k = static_cast<int>(threadIdx.x); k < per_row; k += S::kConsumerThreads) {
        const int block = partition.block_of(first + k);
        atomicOr(&sets[end][block / 32], 1U << block % 32);
      }
    }
    sync_threads<S::kConsumerThreads>(kBarrier);
  }

  /// The sums of columns [first, last) are in the registers.
  __device__ void finish(int row_block, int first, int last) {
    const int per_row = p_.stored.tiles_per_row;
    if (last - first < per_row) {
      store_partial(static_cast<int>(2 * blockIdx.x) + (first == 0 ? 1 : 0));
      __threadfence();
      sync_threads<S::kConsumerThreads>(kBarrier);
      int* is_last = shared_.scratch() + 2;
      if (threadIdx.x == 0) {
        *is_last = arrive(p_.partials.arrivals + row_block, p_.partials.launch, last - first, per_row) ? 1 : 0;
        __threadfence();
      }
      sync_threads<S::kConsumerThreads>(kBarrier);
      if (*reinterpret_cast<volatile int*>(is_last) == 0) return;
      add_partials(shared_.contributors()[first == 0 ? 1 : 0]);
    }
#pragma unroll
    for (int s = 0; s < S::kSlabs; ++s) {
      write_results<T>(p_.result, row_block * kUnitRows + (warpgroup_ * S::kSlabs + s) * 64, sums_[s]);
    }
  }

  /// Of this thread, in slot `slot`: block b has slots 2 b, for a row block that others begin, and 2 b + 1.
  __device__ float4* partial(int slot) {
    return p_.partials.sums +
           ((static_cast<std::int64_t>(slot) * S::kConsumers + warpgroup_) * S::kSlabs * kVectors) * 128 +
           threadIdx.x % 128;
  }
  __device__ void store_partial(int slot) {
    float4* to = partial(slot);
#pragma unroll
    for (int s = 0; s < S::kSlabs; ++s) {
#pragma unroll
      for (int v = 0; v < kVectors; ++v) {
        const float* from = sums_[s] + 4 * v;
        __stcg(to + (s * kVectors + v) * 128, make_float4(from[0], from[1], from[2], from[3]));
      }
    }
  }
  /// In the order of blocks, which is that of columns.
  __device__ void add_partials(const BlockSet& blocks) {
    bool is_first = true;
    for (int word = 0; word < kMaxBlocks / 32; ++word) {
      for (unsigned bits = blocks[word]; bits != 0; bits &= bits - 1) {
        const float4* from = partial(2 * (word * 32 + __ffs(static_cast<int>(bits)) - 1) + (is_first ? 1 : 0));
#pragma unroll
        for (int s = 0; s < S::kSlabs; ++s) {
#pragma unroll
          for (int v = 0; v < kVectors; ++v) {
            const float4 sum = __ldcg(from + (s * kVectors + v) * 128);
            float* to = sums_[s] + 4 * v;
            to[0] = is_first ? sum.x : to[0] + sum.x;
            to[1] = is_first ? sum.y : to[1] + sum.y;
            to[2] = is_first ? sum.z : to[2] + sum.z;
            to[3] = is_first ? sum.w : to[3] + sum.w;
          }
        }
        is_first = false;
      }
    }
  }

  static constexpr int kBarrier = 1 + S::kExtractors;

  const ProductParams& p_;
  const UnitRange range_;
  const SharedMemory<S>& shared_;
  const int warpgroup_;
  float sums_[S::kSlabs][S::kTokens / 2];
};

template <class Format, class S, bool kBf16>
__global__ void __launch_bounds__(S::kThreads, 1)
    product_kernel(const __grid_constant__ ProductParams p, const __grid_constant__ CUtensorMap x) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) unsigned char memory[];
  const SharedMemory<S> shared(memory);
  if (threadIdx.x == S::kThreads - 1) shared.init_barriers();
  const UnitRange range =
      find_range<Format>(p.stored, static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x),
                         *reinterpret_cast<int(*)[2]>(shared.scratch()));
  __syncthreads();
  if (range.first == range.last) return;

  const int thread = static_cast<int>(threadIdx.x);
  if (thread < S::kConsumerThreads) {
    if constexpr (S::kMovesRegisters) take_registers<S::kConsumerRegisters>();
    Consumer<Format, S, kBf16>(p, range, shared).run();
  } else if (thread < S::kConsumerThreads + S::kExtractorThreads) {
    if constexpr (S::kMovesRegisters) give_registers<S::kExtractorRegisters>();
    extract<Format>(range, (thread - S::kConsumerThreads) / 128, shared);
  } else {
    if constexpr (S::kMovesRegisters) give_registers<S::kProducerRegisters>();
    const int warp = (thread - S::kConsumerThreads - S::kExtractorThreads) / 32;
    if (warp == 0) copy_weights<Format>(p.stored, range, shared);
    if (warp == 1) copy_activations(p.stored, &x, range, shared);
  }
#endif
}

}  // namespace sluice::kernels::sm90
