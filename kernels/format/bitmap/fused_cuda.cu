#include "kernels/format/bitmap/fused_cuda.h"
#include "kernels/format/bitmap/fused_product.cuh"
#include "kernels/format/cuda/expand_cuda.cuh"
#include "kernels/format/cuda/fused_launch.cuh"
#include "kernels/format/tile_table.h"

namespace sluice::kernels {
namespace {

using fused::BitmapProduct;
using fused::BitmapTile;
using fused::StreamK;

constexpr std::int64_t kMaxTokens = 128;
constexpr int kTileRows = 256, kWarps = 8, kWarpRows = 32;
/// Fewest segments worth a thread block's start and its share of the sums' exchange.
constexpr std::int64_t kMinUnits = 4;
/// Also above 64 rows of x, where one fits: the division of the work does not depend on them.
constexpr int kBlocksPerMultiprocessor = 2;
/// Nonzeros have addresses of 32 bits; rows, columns and what their last tile adds count in 31.
constexpr std::size_t kMaxBytes = std::size_t{2} << 32;
constexpr std::int64_t kMaxSide = std::int64_t{1} << 30;

std::int64_t row_tiles(std::int64_t rows) { return fused::div_up(rows, kTileRows); }
std::int64_t row_segments(std::int64_t cols) { return fused::div_up(cols, kBitmapSegmentCols); }

StreamK divide(std::int64_t rows, std::int64_t cols) {
  return fused::divide_work(row_tiles(rows), row_segments(cols), kMinUnits, kBlocksPerMultiprocessor);
}

int token_tiles(std::int64_t tokens) {
  return tokens <= 8 ? 1 : tokens <= 16 ? 2 : tokens <= 32 ? 4 : tokens <= 64 ? 8 : 16;
}

FusedMemoryBytes memory_bytes(WeightFormat, std::int64_t rows, std::int64_t cols, std::int64_t tokens) {
  return fused::exchange_bytes(row_tiles(rows) * kWarps, divide(rows, cols).blocks,
                               kTileRows * token_tiles(tokens) * 8);
}

int device_limit(cudaDeviceAttr limit) {
  int device = 0;
  int value = 0;
  CUDA_CHECK(cudaGetDevice(&device));
  CUDA_CHECK(cudaDeviceGetAttribute(&value, limit, device));
  return value;
}

/// Vectors of 8 nonzeros that 32 rows of a segment have at most, but for masks that are far from even: an
/// eighth more than the mean, with one more vector a row for those that begin or end inside one.
int stage_vectors(const WeightView& weight) {
  const std::int64_t chunks = num_tiles(Encoding::kBitmap, weight.rows, weight.cols);
  const std::int64_t bytes = static_cast<std::int64_t>(weight.data.size()) - tile_table_bytes(chunks) -
                             chunks * detail::kChunkMaskBytes;
  const std::int64_t mean =
      fused::div_up(kWarpRows * bytes, 16 * weight.rows * row_segments(weight.cols)) + kWarpRows;
  constexpr std::int64_t kMost = kWarpRows * (kBitmapSegmentCols / 8 + 1);
  return static_cast<int>(std::min(mean * 9 / 8 + 8, kMost));
}

template <class Tile>
void launch(const BitmapProduct& p, cudaStream_t stream) {
  static_assert(Tile::kRows == kTileRows && Tile::kWarps == kWarps && Tile::kWarpRows == kWarpRows);
  const int bytes = Tile::shared_bytes(p.stage_vectors);
  const auto kernel = fused::bitmap_product_kernel<Tile>;
  CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  kernel<<<static_cast<unsigned>(p.work.blocks), Tile::kThreads, bytes, stream>>>(p);
  CUDA_CHECK(cudaGetLastError());
}

/// Three stages where they leave room for as many thread blocks as the sums leave registers for.
template <class T, int kTokenTiles>
void launch_for_room(BitmapProduct p, cudaStream_t stream) {
  using Three = BitmapTile<T, kTokenTiles, 3>;
  using Two = BitmapTile<T, kTokenTiles, 2>;
  const int most = device_limit(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  const int reserved = device_limit(cudaDevAttrReservedSharedMemoryPerBlock);
  const int all = device_limit(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
  const int share = std::min(most, all / Three::kBlocks - reserved);
  if (Three::shared_bytes(p.stage_vectors) <= share) return launch<Three>(p, stream);
  // What has no room is read from device memory.
  const int room = (most - Two::shared_bytes(0)) / (Two::shared_bytes(1) - Two::shared_bytes(0));
  p.stage_vectors = std::max(0, std::min(p.stage_vectors, room));
  launch<Two>(p, stream);
}

template <class T>
void launch_for_tokens(const BitmapProduct& p, cudaStream_t stream) {
  switch (token_tiles(p.out.tokens)) {
    case 1:
      return launch_for_room<T, 1>(p, stream);
    case 2:
      return launch_for_room<T, 2>(p, stream);
    case 4:
      return launch_for_room<T, 4>(p, stream);
    case 8:
      return launch_for_room<T, 8>(p, stream);
    default:
      return launch_for_room<T, 16>(p, stream);
  }
}

bool can_run(const LinearArgs& args) {
  const WeightView& weight = args.weight;
  return weight.format.encoding == Encoding::kBitmap && weight.data.size() <= kMaxBytes &&
         std::max(weight.rows, weight.cols) <= kMaxSide && fused::can_multiply(args, kMaxTokens);
}

void run(const LinearArgs& args, const FusedMemory& memory, cudaStream_t stream) {
  const WeightView& weight = args.weight;
  const FusedMemoryBytes needed = memory_bytes(weight.format, weight.rows, weight.cols, args.x.rows);
  const BitmapProduct p{.chunks = weight.data.data(),
                        .table = detail::tile_table_of(weight),
                        .x = args.x.data,
                        .x_stride = args.x.stride,
                        .rows = static_cast<std::int32_t>(weight.rows),
                        .cols = static_cast<std::int32_t>(weight.cols),
                        .row_segments = static_cast<std::int32_t>(row_segments(weight.cols)),
                        .stage_vectors = stage_vectors(weight),
                        .x_is_aligned = fused::has_aligned_x(args),
                        .work = divide(weight.rows, weight.cols),
                        .exchange = fused::exchange_in(memory, needed),
                        .out = fused::lower_output(args)};
  if (weight.format.dtype == DType::kBF16) {
    launch_for_tokens<__nv_bfloat16>(p, stream);
  } else {
    launch_for_tokens<__half>(p, stream);
  }
}

}  // namespace

FusedKernel bitmap_sm80_kernel() {
  return {.name = "bitmap_sm80",
          .encoding = Encoding::kBitmap,
          .max_rows = kMaxTokens,
          .can_run = can_run,
          .memory_bytes = memory_bytes,
          .run = run};
}

}  // namespace sluice::kernels
