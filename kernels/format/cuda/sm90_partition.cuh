// How a fused product is shared out among the blocks of its grid (stream-K): the matrix is a sequence of
// units of 256 rows x 64 columns, row block by row block, and each block gets a run of equal cost. Where runs
// begin depends on the stored weight and the grid alone. For *.cu files only, inside code for sm_90a.
#pragma once

#include <cstdint>

#include "kernels/format/cuda/sm90_instructions.cuh"
#include "kernels/format/cuda/sm90_params.h"

namespace sluice::kernels::sm90 {

using RunSet = std::uint32_t[kMaxBlocks / 32];

struct UnitRange {
  int first, last;  ///< units [first, last)
};

/// Format::cost_before(stored, unit): what the units ahead of `unit` cost; rises with every unit.
template <class Format>
class Partition {
 public:
  __device__ Partition(const StoredTiles& stored, int num_runs)
      : stored_(stored), num_runs_(num_runs), total_(Format::cost_before(stored, stored.num_units)) {}

  /// Where a run begins: its first unit is the first one at or behind this cost.
  __device__ std::uint64_t bound(int run) const {
    return total_ * static_cast<unsigned>(run) / static_cast<unsigned>(num_runs_);
  }
  /// The run that holds the unit.
  __device__ int run_of(int unit) const {
    const std::uint64_t cost = Format::cost_before(stored_, unit);
    return static_cast<int>(((cost + 1) * static_cast<unsigned>(num_runs_) - 1) / total_);
  }

 private:
  const StoredTiles& stored_;
  int num_runs_;
  std::uint64_t total_;
};

/// The units of a run, for all threads of its block, at least 512. Nearly all tables are so even that the
/// first window of 256 units holds the bound, and one round of loads finds it. `below`: shared memory.
template <class Format>
__device__ UnitRange find_range(const StoredTiles& stored, int run, int num_runs, int (&below)[2]) {
  constexpr int kWindow = 256;
  // Of both ends: the answer lies in [low, high]; samples are at from, from + step, ..
  int low[2], high[2], from[2], step[2];
#pragma unroll
  for (int s = 0; s < 2; ++s) {
    const auto guess = static_cast<int>(static_cast<std::int64_t>(stored.num_units) * (run + s) / num_runs);
    low[s] = 0;
    high[s] = stored.num_units;
    from[s] = max(guess - kWindow / 2, 0);
    step[s] = 1;
  }
  const Partition<Format> partition(stored, num_runs);
  const int side = threadIdx.x / kWindow;
  while (true) {
    if (threadIdx.x < 2) below[threadIdx.x] = 0;
    __syncthreads();
    if (side < 2) {
      const int unit = (side == 0 ? from[0] : from[1]) +
                       static_cast<int>(threadIdx.x) % kWindow * (side == 0 ? step[0] : step[1]);
      const bool is_below =
          unit < stored.num_units && Format::cost_before(stored, unit) < partition.bound(run + side);
      const unsigned votes = __ballot_sync(0xFFFFFFFFU, is_below);
      if (threadIdx.x % 32 == 0 && votes != 0) atomicAdd(&below[side], __popc(votes));
    }
    __syncthreads();
#pragma unroll
    for (int s = 0; s < 2; ++s) {
      const int count = as_uniform(below[s]);
      if (count < kWindow) high[s] = min(high[s], from[s] + count * step[s]);
      if (count > 0) low[s] = max(low[s], from[s] + (count - 1) * step[s] + 1);
      from[s] = low[s];
      step[s] = max((high[s] - low[s] + kWindow - 1) / kWindow, 1);
    }
    if (low[0] >= high[0] && low[1] >= high[1]) return {high[0], high[1]};
    __syncthreads();
  }
}

}  // namespace sluice::kernels::sm90
