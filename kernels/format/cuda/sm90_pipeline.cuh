// The fused product on sm_90a, y = epilogue(x W^T + bias) + residual with W sparse, for formats whose tiles
// are scattered into shared memory. One persistent block per SM:
//
//   3 producer warps  stored tiles --bulk copies--> slots of a ring
//   1 producer warp   64 columns of x --tensor copies--> stages
//   2 or 3 extractor groups of 4 warps: slot --scatter--> a buffer of 256 x 64 elements, swizzled
//   1 or 2 consumer warpgroups: matrix products of buffer and stage, sums in registers
//
// The grid shares the units (sm90_partition.cuh), a run for each block; sums of a row block that several of
// them work on go through memory, and the extractors of the last one to come add them in the order of
// columns. So the order of additions depends on the weight and the grid, not on the number of tokens. For
// *.cu files only.
#pragma once

#include "kernels/format/cuda/sm90_consumer.cuh"
#include "kernels/format/cuda/sm90_shape.cuh"

namespace sluice::kernels::sm90 {

/// For all threads.
template <class Format, class S>
__device__ Work plan_work(const StoredTiles& stored, const SharedMemory<S>& shared) {
  Scratch* scratch = shared.scratch();
  if (threadIdx.x == 0) {
    scratch->largest = 1;
    scratch->completed[0] = scratch->completed[1] = -1;
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
  const int slot_bytes = (as_uniform(scratch->largest) * 16 + 127) / 128 * 128;
  const int num_slots = min(S::kSlots, S::kRingBytes / slot_bytes);
  return {range, num_slots, slot_bytes, num_slots >= 3 ? S::kExtractors : 1,
          num_slots >= kWeightWarps + 3 ? kWeightWarps : 1};
}

/// Every num_weight_warps-th unit, by one thread. Until the kernels before are done it has one of them under
/// way at a time: behind rings full of copies, what those kernels still exchange takes longer.
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
    while (i < work.num_slots && !barrier_is_past(full, slot.parity) &&
           !barrier_is_past(shared.kernels_done(), 0)) {
    }
    slot.advance(stride, work.num_slots);
  }
}

/// By one thread, which also tells those that copy weights once the kernels before are done.
template <class S>
__device__ void copy_activations(const StoredTiles& stored, const CUtensorMap* x, const Work& work,
                                 const SharedMemory<S>& shared) {
  wait_for_kernels_before();
  barrier_arrive(shared.kernels_done());
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

template <class Format, class S, bool kBf16>
__global__ void __launch_bounds__(S::kThreads, 1)
    product_kernel(const __grid_constant__ ProductParams p, const __grid_constant__ CUtensorMap x) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) unsigned char memory[];
  const SharedMemory<S> shared(memory);
  let_next_kernel_start();
  const Work work = plan_work<Format>(p.stored, shared);
  if (work.num_units() == 0) return;

  const int thread = static_cast<int>(threadIdx.x);
  const int warp = as_uniform(thread / 32);
  if (warp < S::kConsumerThreads / 32) {
    if constexpr (S::kMovesRegisters) take_registers<S::kConsumerRegisters>();
    Consumer<Format, S, kBf16>(p, work, shared, warp).run();
  } else if (warp < (S::kConsumerThreads + S::kExtractorThreads) / 32) {
    if constexpr (S::kMovesRegisters) give_registers<S::kExtractorRegisters>();
    extract<Format>(work, (warp - S::kConsumerThreads / 32) / 4, shared);
    barrier_wait(shared.sums_stored(), 0);
    wait_for_kernels_before();
#pragma unroll 1
    for (int end = 0; end < 2; ++end) {
      const int row_block = shared.scratch()->completed[end];
      if (row_block >= 0)
        finish_shared<S, typename Consumer<Format, S, kBf16>::T>(p, row_block, shared.contributors()[end]);
    }
  } else {
    if constexpr (S::kMovesRegisters) give_registers<S::kProducerRegisters>();
    const int producer = warp - (S::kConsumerThreads + S::kExtractorThreads) / 32;
    if (thread % 32 == 0) {
      if (producer < kWeightWarps) {
        copy_weights<Format>(p.stored, work, producer, shared);
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
