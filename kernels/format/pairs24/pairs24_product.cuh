// The fused product of pairs24 on sm_90a, y = epilogue(x W^T + bias) + residual:
//
//   1 producer warp  units --bulk copies--> a ring of slots for each warpgroup
//   1 producer warp  64 or 128 columns of x --tensor copies--> pieces, for all warpgroups
//   2 to 6 warpgroups: words of a slot --> registers; products of those with a piece, sums in registers
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
  return static_cast<int>(sm90::as_uniform(largest)) * 16;
}

/// Copies of a warpgroup's units into its ring, by one thread.
template <class S>
class UnitCopies {
 public:
  __device__ UnitCopies(const Product& p, const UnitRange& range, const Rings<S>& rings, SharedAddress base,
                        int warpgroup)
      : p_(p),
        rings_(rings),
        base_(base),
        warpgroup_(warpgroup),
        left_(range.last - range.first),
        tile_(range.first / p.work.per_tile),
        col_(range.first - tile_ * p.work.per_tile),
        next_(bounds()) {}

  __device__ int left() const { return left_; }
  /// Starts the copy of the next unit once a slot is empty. False if there are no rows for it.
  __device__ bool start() {
    const uint2 unit = next_;
    --left_;
    if (++col_ == p_.work.per_tile) {
      col_ = 0;
      ++tile_;
    }
    next_ = bounds();
    if (unit.y == 0) return false;
    const std::uint32_t bytes = (unit.y - unit.x) * 16;
    const SharedAddress full = Rings<S>::slot_full(base_, warpgroup_, slot_.at);
    sm90::barrier_wait(Rings<S>::slot_empty(base_, warpgroup_, slot_.at), slot_.parity ^ 1);
    sm90::barrier_arrive_expect(full, bytes);
    sm90::bulk_copy(rings_.slot(warpgroup_, slot_.at), p_.units + std::uint64_t{16} * unit.x, bytes, full,
                    policy_);
    landing_ = slot_;
    slot_.advance(1, rings_.stages());
    return true;
  }
  /// Whether the copy that start() has started last is complete.
  __device__ bool has_landed() const {
    return sm90::barrier_is_past(Rings<S>::slot_full(base_, warpgroup_, landing_.at), landing_.parity);
  }

 private:
  /// Of the next unit, in units of 16 bytes; none: no rows.
  __device__ uint2 bounds() const {
    if (left_ == 0 || !p_.has_rows<S>(tile_, warpgroup_)) return {0, 0};
    const std::uint32_t* entry = p_.table + p_.unit_of<S>(tile_, col_, warpgroup_);
    return {__ldg(entry), __ldg(entry + 1)};
  }

  const Product& p_;
  const Rings<S>& rings_;
  const SharedAddress base_;
  const int warpgroup_;
  const std::uint64_t policy_ = evict_first_policy();
  int left_, tile_, col_;
  sm90::Cursor slot_, landing_;
  uint2 next_;
};

/// The units of a warpgroup, by one thread. Until the kernels before are done one of them is under way at a
/// time: behind rings full of copies, what those kernels still exchange takes longer.
template <class S>
__device__ void copy_units(const Product& p, const UnitRange& range, const Rings<S>& rings,
                           SharedAddress base, int warpgroup) {
  UnitCopies<S> units(p, range, rings, base, warpgroup);
  for (int i = min(rings.stages(), units.left()); i > 0; --i) {
    if (!units.start()) continue;
    while (!units.has_landed() && !sm90::barrier_is_past(Rings<S>::kernels_done(base), 0)) {
    }
  }
  while (units.left() > 0) units.start();
}

/// By one thread, which also tells those that copy units once the kernels before are done.
template <class S>
__device__ void copy_activations(const Product& p, const CUtensorMap* x, const UnitRange& range,
                                 const Rings<S>& rings, SharedAddress base) {
  sm90::prefetch_map(x);
  wait_for_kernels_before();
  sm90::barrier_arrive(Rings<S>::kernels_done(base));
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
  const int warp = sm90::as_uniform(static_cast<int>(threadIdx.x) / 32);
  const auto run = static_cast<int>(blockIdx.x);
  const UnitRange range = {p.work.first_unit(run), p.work.first_unit(run + 1)};
  if (threadIdx.x == S::kThreads - 1) Rings<S>::init_barriers(base);
  // Synchronises the block: barriers are there for all behind it.
  const Rings<S> rings(base,
                       largest_unit<S>(p, range, *reinterpret_cast<unsigned*>(memory + 8 * S::kBarriers)));

  if (warp < S::kTileWarps) {
    let_next_kernel_start();
    Consumer<S, kBf16>(p, rings, base, warp).multiply_run(range.first, range.last);
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
