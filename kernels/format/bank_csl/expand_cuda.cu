// Expansion of bank_csl: a block makes a tile in shared memory and writes it out. Eight slots of all lists
// are a step; four steps, one a warp, are a round. Lane l has the lists of bank l, so its stores never
// conflict. Where a step of a D4 tile begins is the sum of the distances before it: every warp loads those of
// the whole round at once and adds them up for itself.
#include "kernels/device/cuda/check.h"
#include "kernels/format/bank_csl/bank_lists.h"
#include "kernels/format/cuda/shared_tile.cuh"

namespace sluice::kernels::detail {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / 32, kRows = kBankTileRows;
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

/// bank_index_bytes is for the host.
__device__ int bank_index_bytes_of(BankTileKind kind) { return kind == BankTileKind::kD4 ? 4 : 8; }

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

/// The slots of one list in a step whose distances count from `row`.
__device__ void store_distances(const Tile& tile, int list, const uint4& values, std::uint32_t distances,
                                int row) {
  store_slots(tile, list, values, [&](int i) {
    row += 1 + static_cast<int>(distances >> (4 * i) & 15U);
    return row;
  });
}

/// What a lane has of a round: the values of its two lists in the warp's step, and the indices.
struct Round {
  uint4 values[2];
  uint4 rows;               // I8: eight of each list
  uint2 distances[kWarps];  // D4: of all steps of the round
};

__global__ void __launch_bounds__(kThreads) expand_bank_csl_kernel(const __grid_constant__ Params p) {
  __shared__ alignas(16) std::uint16_t shared[kRows * kSharedCols];
  const Tile tile{shared};
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const std::uint32_t begin = __ldg(p.table + blockIdx.x);
  const std::uint32_t end = __ldg(p.table + blockIdx.x + 1);
  const uint4* const from = p.tiles + begin;
  const uint4 header = __ldg(from);
  tile.clear();
  const auto kind = static_cast<BankTileKind>(header.x & 0xFFU);
  const int steps = static_cast<int>(header.x >> 16) / kBankSlotStep;
  const uint4* const values = from + kHeaderVectors + 2 * lane;  // 64 lists of a step, 16 bytes each
  const uint4* const indices = from + kHeaderVectors + steps * kBankLists;
  const int index_vectors = steps * kBankLists * bank_index_bytes_of(kind) / static_cast<int>(sizeof(uint4));

  int row[2] = {-1, -1};
  for (int first = 0; first < steps; first += kWarps) {
    const int step = first + warp;
    Round round;
    if (step < steps) {
      round.values[0] = __ldg(values + step * kBankLists);
      round.values[1] = __ldg(values + step * kBankLists + 1);
      if (kind == BankTileKind::kI8) round.rows = __ldg(indices + step * 32 + lane);
    }
    if (kind == BankTileKind::kD4) {
#pragma unroll
      for (int i = 0; i < kWarps; ++i) {
        const auto* const at = reinterpret_cast<const uint2*>(indices) + (first + i) * 32 + lane;
        round.distances[i] = first + i < steps ? __ldg(at) : uint2{};
      }
    }
    if (first == 0) __syncthreads();  // the tile is cleared
    if (kind == BankTileKind::kD4) {
      uint2 own = {};
      int own_row[2] = {};
#pragma unroll
      for (int i = 0; i < kWarps; ++i) {
        if (i == warp) {
          own = round.distances[i];
          own_row[0] = row[0];
          own_row[1] = row[1];
        }
        row[0] += rows_of_step(round.distances[i].x);
        row[1] += rows_of_step(round.distances[i].y);
      }
      if (step < steps) {
        store_distances(tile, 2 * lane, round.values[0], own.x, own_row[0]);
        store_distances(tile, 2 * lane + 1, round.values[1], own.y, own_row[1]);
      }
    } else if (step < steps) {
      const auto row_of = [](std::uint32_t low, std::uint32_t high) {
        return [low, high](int i) { return static_cast<int>((i < 4 ? low : high) >> (8 * (i % 4)) & 255U); };
      };
      store_slots(tile, 2 * lane, round.values[0], row_of(round.rows.x, round.rows.y));
      store_slots(tile, 2 * lane + 1, round.values[1], row_of(round.rows.z, round.rows.w));
    }
  }
  if (steps == 0) __syncthreads();
  const auto overflow = static_cast<std::uint32_t>(kHeaderVectors + steps * kBankLists + index_vectors);
  for (std::uint32_t at = overflow + threadIdx.x; at < end - begin; at += kThreads)
    tile.store(__ldg(from + at));
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
