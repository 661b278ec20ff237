// Expansion of tiled_csl: a block makes a tile in shared memory and writes it out. The first words are on
// their way while the tile is cleared.
#include "kernels/device/cuda/check.h"
#include "kernels/format/cuda/shared_tile.cuh"

namespace sluice::kernels::detail {
namespace {

constexpr int kThreads = 256, kRows = kCslTileRows;
constexpr int kAhead = 4;  // vectors of a thread that are loaded at once

struct Params {
  const uint4* words;          // of the whole matrix
  const std::uint32_t* table;  // from the first tile to expand on
  ExpandedRows out;
  std::int64_t num_rows;
  std::uint32_t row_tiles;
};

__global__ void __launch_bounds__(kThreads) expand_tiled_csl_kernel(const __grid_constant__ Params p) {
  __shared__ alignas(16) std::uint16_t values[kRows * kSharedCols];
  const BlockTile<kRows, kThreads> tile{values};
  const std::uint32_t begin = __ldg(p.table + blockIdx.x);
  const std::uint32_t end = __ldg(p.table + blockIdx.x + 1);
  uint4 words[kAhead];
  const auto load = [&](std::uint32_t first) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const std::uint32_t at = first + static_cast<std::uint32_t>(i) * kThreads;
      if (at < end) words[i] = __ldg(p.words + at);
    }
  };
  const std::uint32_t first = begin + threadIdx.x;
  load(first);
  tile.clear();
  __syncthreads();
  for (std::uint32_t at = first; at < end; at += kAhead * kThreads) {
    if (at != first) load(at);
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (at + static_cast<std::uint32_t>(i) * kThreads < end) tile.store(words[i]);
    }
  }
  __syncthreads();
  tile.write(p.out, p.num_rows, std::int64_t{blockIdx.x / p.row_tiles} * kRows,
             std::int64_t{blockIdx.x % p.row_tiles} * kSharedCols);
}

}  // namespace

void expand_tiled_csl_cuda(const ExpandArgs& args, cudaStream_t stream) {
  const WeightView& weight = args.weight;
  const std::int64_t row_tiles = (weight.cols + kCslTileCols - 1) / kCslTileCols;
  const Params p{.words = reinterpret_cast<const uint4*>(weight.data.data()),
                 .table = tile_table_of(weight) + args.first_row / kRows * row_tiles,
                 .out = expanded_rows(args),
                 .num_rows = args.num_rows,
                 .row_tiles = static_cast<std::uint32_t>(row_tiles)};
  const auto blocks = static_cast<unsigned>(num_tiles(Encoding::kTiledCsl, args.num_rows, weight.cols));
  expand_tiled_csl_kernel<<<blocks, kThreads, 0, stream>>>(p);
  CUDA_CHECK(cudaGetLastError());
}

}  // namespace sluice::kernels::detail
