// The fused product of pairs24 on sm_90a, y = epilogue(x W^T + bias) + residual:
//
//   1 producer warp  units --bulk copies--> a ring of slots for each warpgroup
//   1 producer warp  64 or 128 columns of x --tensor copies--> pieces, for all warpgroups
//   2 to 4 warpgroups: words of a slot --> registers; products of those with a piece, sums in registers
//
// wgmma.sp takes the pairs and their metadata as they are stored. What is left of a quad is in its first two
// columns, so that in a unit with masks it makes a second product whose metadata is a constant: no store to
// shared memory, and no clearing. Entries of a unit without masks are, eight at a time, the columns of a
// dense fragment, by the columns of x that they name. For *.cu files only.
#pragma once

#include <cuda.h>

#include "kernels/format/pairs24/pairs24_consumer.cuh"

namespace sluice::kernels::pairs24 {

struct UnitRange {
  std::int32_t first, last;  ///< [first, last): a unit of work is that of each warpgroup
};

/// Bytes of the largest unit of the range. For all threads; `largest`: shared memory.
template <class S>
__device__ int largest_unit(const Product& p, const UnitRange& range, unsigned& largest) {
  unsigned size = 0;
  const int per_tile = p.work.per_tile;
  for (int i = range.first * S::kWarpgroups + static_cast<int>(threadIdx.x); i < range.last * S::kWarpgroups;
       i += S::kThreads) {
    const int tile = i / S::kWarpgroups / per_tile;
    if (!p.has_rows<S>(tile, i % S::kWarpgroups)) continue;
    const int unit = p.unit_of<S>(tile, i / S::kWarpgroups - tile * per_tile, i % S::kWarpgroups);
    size = max(size, __ldg(p.table + unit + 1) - __ldg(p.table + unit));
  }
  if (threadIdx.x == 0) largest = 0;
  __syncthreads();
  size = __reduce_max_sync(0xFFFFFFFFU, size);
  if (threadIdx.x % 32 == 0) atomicMax(&largest, size);
  __syncthreads();
  return static_cast<int>(largest) * 16;
}

/// The units of a warpgroup, by one thread.
template <class S>
__device__ void copy_units(const Product& p, const UnitRange& range, const Rings<S>& rings,
                           SharedAddress base, int warpgroup) {
  const std::uint64_t policy = evict_first_policy();
  int tile = range.first / p.work.per_tile;
  int col = range.first - tile * p.work.per_tile;
  const auto next_unit = [&](std::int32_t unit) {
    uint2 bounds = {0, 0};  // in units of 16 bytes; none: no rows
    if (unit < range.last && p.has_rows<S>(tile, warpgroup)) {
      const std::uint32_t* entry = p.table + p.unit_of<S>(tile, col, warpgroup);
      bounds = {__ldg(entry), __ldg(entry + 1)};
    }
    if (++col == p.work.per_tile) {
      col = 0;
      ++tile;
    }
    return bounds;
  };
  sm90::Cursor slot;
  uint2 next = next_unit(range.first);
  for (int unit = range.first; unit < range.last; ++unit) {
    const uint2 bounds = next;
    next = next_unit(unit + 1);
    if (bounds.y == 0) continue;
    const std::uint32_t bytes = (bounds.y - bounds.x) * 16;
    const SharedAddress full = Rings<S>::slot_full(base, warpgroup, slot.at);
    sm90::barrier_wait(Rings<S>::slot_empty(base, warpgroup, slot.at), slot.parity ^ 1);
    sm90::barrier_arrive_expect(full, bytes);
    sm90::bulk_copy(rings.slot(warpgroup, slot.at), p.units + std::uint64_t{16} * bounds.x, bytes, full,
                    policy);
    slot.advance(1, rings.stages());
  }
}

/// By one thread.
template <class S>
__device__ void copy_activations(const Product& p, const CUtensorMap* x, const UnitRange& range,
                                 const Rings<S>& rings, SharedAddress base) {
  sm90::prefetch_map(x);
  wait_for_kernels_before();
  const int row_pieces = p.work.per_tile * S::kPieces;
  int at = range.first % p.work.per_tile * S::kPieces;
  sm90::Cursor piece;
  for (int i = 0; i < (range.last - range.first) * S::kPieces; ++i) {
    const SharedAddress full = Rings<S>::piece_full(base, piece.at);
    sm90::barrier_wait(Rings<S>::piece_empty(base, piece.at), piece.parity ^ 1);
    sm90::barrier_arrive_expect(full, S::kPieceBytes);
#pragma unroll
    for (int box = 0; box < S::kPieceBytes / S::kBoxBytes; ++box)
      sm90::tensor_copy(rings.piece(piece.at) + box * S::kBoxBytes, x, at * S::kPieceCols + box * 64, 0,
                        full);
    piece.advance(1, rings.pieces());
    if (++at == row_pieces) at = 0;
  }
}

template <class S, bool kBf16>
__global__ void __launch_bounds__(S::kThreads, S::kBlocks)
    product_kernel(const __grid_constant__ Product p, const __grid_constant__ CUtensorMap x) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) unsigned char memory[];
  const SharedAddress base = shared_address(memory);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const auto run = static_cast<int>(blockIdx.x);
  const UnitRange range = {p.work.first_unit(run), p.work.first_unit(run + 1)};
  if (threadIdx.x == S::kThreads - 1) Rings<S>::init_barriers(base);
  const Rings<S> rings(base,
                       largest_unit<S>(p, range, *reinterpret_cast<unsigned*>(memory + 8 * S::kBarriers)));

  if (warp < S::kTileWarps) {
    let_next_kernel_start();
    Consumer<S, kBf16>(p, rings, base).multiply_run(range.first, range.last);
  } else if (warp == S::kTileWarps) {
    if (threadIdx.x % 32 < S::kWarpgroups)
      copy_units<S>(p, range, rings, base, static_cast<int>(threadIdx.x) % 32);
    __syncwarp();
    // Not earlier: the kernel behind asks for its weights as soon as it starts.
    let_next_kernel_start();
  } else {
    let_next_kernel_start();
    if (threadIdx.x % 32 == 0) copy_activations<S>(p, &x, range, rings, base);
  }
#else
  __trap();
#endif
}

}  // namespace sluice::kernels::pairs24
