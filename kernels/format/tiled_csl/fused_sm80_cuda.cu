#include "kernels/format/cuda/fused_launch.cuh"
#include "kernels/format/tiled_csl/fused_sm80.cuh"
#include "kernels/format/tiled_csl/fused_sm80_cuda.h"

namespace sluice::kernels {
namespace {

using fused::CslProduct;
using fused::CslTile;
using fused::StreamK;

constexpr std::int64_t kMaxTokens = 128;
constexpr int kWarps = 4;
/// Tiles that are worth a thread block's start and its share of the sums' exchange.
constexpr std::int64_t kMinUnits = 4;
constexpr int kBlocksPerMultiprocessor = 4;

std::int64_t row_tiles(std::int64_t rows) { return fused::div_up(rows, kCslTileRows); }

StreamK divide(std::int64_t rows, std::int64_t cols) {
  return fused::divide_work(row_tiles(rows), fused::div_up(cols, kCslTileCols), kMinUnits,
                            kBlocksPerMultiprocessor);
}

int token_tiles(std::int64_t tokens) {
  return tokens <= 8 ? 1 : tokens <= 16 ? 2 : tokens <= 32 ? 4 : tokens <= 64 ? 8 : 16;
}

FusedMemoryBytes memory_bytes(WeightFormat, std::int64_t rows, std::int64_t cols, std::int64_t tokens) {
  return fused::exchange_bytes(row_tiles(rows) * kWarps, divide(rows, cols).blocks,
                               kCslTileRows * token_tiles(tokens) * 8);
}

template <class Tile>
void launch(const CslProduct& p, cudaStream_t stream) {
  static_assert(Tile::kRows == kCslTileRows && Tile::kCols == kCslTileCols && Tile::kWarps == kWarps);
  fused::launch<Tile>(fused::csl_product_kernel<Tile>, p, stream);
}

/// Lists of up to kVectors * 128 vectors of 4 nonzeros go through registers; as many tiles ahead, and as many
/// thread blocks on a multiprocessor, as the sums leave registers for.
template <class T, int kVectors>
void launch_for_tokens(const CslProduct& p, cudaStream_t stream) {
  switch (token_tiles(p.out.tokens)) {
    case 1:
      return launch<CslTile<T, 1, kVectors, 2, 4>>(p, stream);
    case 2:
      return launch<CslTile<T, 2, kVectors, 2, 4>>(p, stream);
    case 4:
      return launch<CslTile<T, 4, kVectors, 1, 4>>(p, stream);
    case 8:
      return launch<CslTile<T, 8, kVectors, 1, 2>>(p, stream);
    default:
      return launch<CslTile<T, 16, kVectors, 1, 2>>(p, stream);
  }
}

template <class T>
void launch_for_lists(std::int64_t mean_vectors, const CslProduct& p, cudaStream_t stream) {
  // Random masks differ little from tile to tile: a twentieth more than the mean covers nearly all of them.
  if (mean_vectors * 21 / 20 <= 4 * 128) return launch_for_tokens<T, 4>(p, stream);
  launch_for_tokens<T, 8>(p, stream);
}

bool can_run(const LinearArgs& args) {
  return args.weight.format.encoding == Encoding::kTiledCsl && fused::can_multiply(args, kMaxTokens);
}

void run(const LinearArgs& args, const FusedMemory& memory, cudaStream_t stream) {
  const WeightView& weight = args.weight;
  const std::int64_t tiles = num_tiles(Encoding::kTiledCsl, weight.rows, weight.cols);
  const std::int64_t list_bytes = static_cast<std::int64_t>(weight.data.size()) - tile_table_bytes(tiles);
  const StreamK work = divide(weight.rows, weight.cols);
  const FusedMemoryBytes needed = memory_bytes(weight.format, weight.rows, weight.cols, args.x.rows);
  const CslProduct p{.lists = reinterpret_cast<const uint4*>(weight.data.data()),
                     .starts = reinterpret_cast<const std::uint32_t*>(weight.data.data() + list_bytes),
                     .x = args.x.data,
                     .x_stride = args.x.stride,
                     .rows = static_cast<std::int32_t>(weight.rows),
                     .cols = static_cast<std::int32_t>(weight.cols),
                     .x_is_aligned = fused::has_aligned_x(args),
                     .work = work,
                     .exchange = fused::exchange_in(memory, needed),
                     .out = fused::lower_output(args)};
  const std::int64_t mean_vectors = list_bytes / 16 / tiles;
  if (weight.format.dtype == DType::kBF16) {
    launch_for_lists<__nv_bfloat16>(mean_vectors, p, stream);
  } else {
    launch_for_lists<__half>(mean_vectors, p, stream);
  }
}

}  // namespace

FusedKernel tiled_csl_sm80_kernel() {
  return {.name = "tiled_csl_sm80",
          .encoding = Encoding::kTiledCsl,
          .max_rows = kMaxTokens,
          .can_run = can_run,
          .memory_bytes = memory_bytes,
          .run = run};
}

}  // namespace sluice::kernels
