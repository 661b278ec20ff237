// Expansion of bank_csl: a block makes a tile in shared memory and writes it out. Eight slots of all lists
// are a step; warps take steps in turn, lane l the lists of bank l, so its stores never conflict. Where a
// step of a D4 tile begins is the sum of the distances before it, which every warp adds up for itself.
#include "kernels/device/cuda/check.h"
#include "kernels/format/bank_csl/bank_lists.h"
#include "kernels/format/shared_tile.cuh"

namespace sluice::kernels::detail {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32, kRows = kBankTileRows;
constexpr int kHeaderVectors = sizeof(BankTileHeader) / sizeof(uint4);
static_assert(kHeaderVectors == 1);

struct Params {
  const uint4* tiles;          // of the whole matrix
  const std::uint32_t* table;  // from the first tile to expand on
  ExpandedRows out;
  std::int64_t num_rows;
  std::uint32_t row_tiles;
};

using Tile = BlockTile<kRows, kThreads>;

/// Eight slots of one list: their rows are `row(i)`.
template <class Row>
__device__ void store_slots(const Tile& tile, int list, const uint4& values, Row row) {
  const std::uint32_t words[4] = {values.x, values.y, values.z, values.w};
#pragma unroll
  for (int i = 0; i < kBankSlotStep; ++i)
    tile.values[row(i) * kSharedCols + list] = static_cast<std::uint16_t>(words[i / 2] >> (16 * (i % 2)));
}

/// A slot goes on by its distance and one.
__device__ int rows_of_step(std::uint32_t distances) {
  const std::uint32_t pairs = (distances & 0x0F0F0F0FU) + (distances >> 4 & 0x0F0F0F0FU);
  return static_cast<int>(__dp4a(pairs, 0x01010101U, 0U)) + kBankSlotStep;
}

__device__ void store_distances(const Tile& tile, int list, const uint4& values, std::uint32_t distances,
                                int row) {
  store_slots(tile, list, values, [&](int i) {
    row += 1 + static_cast<int>(distances >> (4 * i) & 15U);
    return row;
  });
}

__global__ void __launch_bounds__(kThreads) expand_bank_csl_kernel(const __grid_constant__ Params p) {
  __shared__ alignas(16) std::uint16_t shared[kRows * kSharedCols];
  const Tile tile{shared};
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const uint4* const from = p.tiles + __ldg(p.table + blockIdx.x);
  const std::uint32_t vectors = __ldg(p.table + blockIdx.x + 1) - __ldg(p.table + blockIdx.x);
  const uint4 header = __ldg(from);
  const auto kind = static_cast<BankTileKind>(header.x & 0xFFU);
  const int steps = static_cast<int>(header.x >> 16) / kBankSlotStep;
  const uint4* const values = from + kHeaderVectors + 2 * lane;  // 64 lists of a step, 16 bytes each
  const uint4* const indices = from + kHeaderVectors + steps * kBankLists;
  tile.clear();
  __syncthreads();

  int index_vectors = 0;
  if (kind == BankTileKind::kD4) {
    const auto* const distances = reinterpret_cast<const uint2*>(indices) + lane;
    index_vectors = steps * kBankLists / 4;
    int row0 = -1;
    int row1 = -1;
    for (int step = 0; step < steps; ++step) {
      const uint2 both = __ldg(distances + step * 32);
      if (step % kWarps == warp) {
        store_distances(tile, 2 * lane, __ldg(values + step * kBankLists), both.x, row0);
        store_distances(tile, 2 * lane + 1, __ldg(values + step * kBankLists + 1), both.y, row1);
      }
      row0 += rows_of_step(both.x);
      row1 += rows_of_step(both.y);
    }
  } else if (kind == BankTileKind::kI8) {
    index_vectors = steps * kBankLists / 2;
    for (int step = warp; step < steps; step += kWarps) {
      const uint4 rows = __ldg(indices + step * 32 + lane);
      const auto row_of = [](std::uint32_t low, std::uint32_t high) {
        return [low, high](int i) { return static_cast<int>((i < 4 ? low : high) >> (8 * (i % 4)) & 255U); };
      };
      store_slots(tile, 2 * lane, __ldg(values + step * kBankLists), row_of(rows.x, rows.y));
      store_slots(tile, 2 * lane + 1, __ldg(values + step * kBankLists + 1), row_of(rows.z, rows.w));
    }
  }
  const std::uint32_t overflow =
      kHeaderVectors + static_cast<std::uint32_t>(steps * kBankLists + index_vectors);
  for (std::uint32_t at = overflow + threadIdx.x; at < vectors; at += kThreads) tile.store(__ldg(from + at));
  __syncthreads();
  tile.write(p.out, p.num_rows, std::int64_t{blockIdx.x / p.row_tiles} * kRows,
             std::int64_t{blockIdx.x % p.row_tiles} * kSharedCols);
}

}  // namespace

void expand_bank_csl_cuda(const ExpandArgs& args, cudaStream_t stream) {
  const WeightView& weight = args.weight;
  const std::int64_t row_tiles = (weight.cols + kBankTileCols - 1) / kBankTileCols;
  const Params p{.tiles = reinterpret_cast<const uint4*>(weight.data.data()),
                 .table = tile_table_of(weight) + args.first_row / kRows * row_tiles,
                 .out = expanded_rows(args),
                 .num_rows = args.num_rows,
                 .row_tiles = static_cast<std::uint32_t>(row_tiles)};
  const auto blocks = static_cast<unsigned>(num_tiles(Encoding::kBankCsl, args.num_rows, weight.cols));
  expand_bank_csl_kernel<<<blocks, kThreads, 0, stream>>>(p);
  CUDA_CHECK(cudaGetLastError());
}

}  // namespace sluice::kernels::detail
