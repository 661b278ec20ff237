// Where the thread blocks of a fused product that share a tile of y leave sums for the last of them: plain
// data, and the memory that it lies in. The kernels' side is in fused_epilogue.cuh. Host only.
#pragma once

#include <vector_types.h>

#include "kernels/format/cuda/fused_cuda.h"

namespace sluice::kernels::fused {

struct Exchange {
  unsigned* counters;  ///< of who has come to a tile, or to a warp's rows of it; zeros but during a product
  float4* sums;        ///< two places for each run: of the tiles that it shares, it ends one and begins one
};

/// Of so many counters, and of places for `tile_sums` fp32 sums.
constexpr FusedMemoryBytes exchange_bytes(std::int64_t counters, std::int64_t runs, std::int64_t tile_sums) {
  return {.counters = counters * std::int64_t{sizeof(unsigned)},
          .scratch = 2 * runs * tile_sums * std::int64_t{sizeof(float)}};
}
/// In memory that covers `needed`.
Exchange exchange_in(const FusedMemory& memory, const FusedMemoryBytes& needed);

}  // namespace sluice::kernels::fused
