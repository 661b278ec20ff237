#include <limits>

#include "core/units.h"
#include "kernels/device/cuda/launch_kernel.cuh"
#include "kernels/format/cuda/expand_cuda.cuh"
#include "kernels/format/cuda/fused_launch.cuh"
#include "kernels/format/cuda/sm90_host.h"
#include "kernels/format/pairs24/pairs24_product.cuh"
#include "kernels/format/pairs24/pairs24_sm90.h"

namespace sluice::kernels {
namespace {

using namespace pairs24;

constexpr std::int64_t kMaxTokens = 128;
/// Fewest units worth a run's share of the sums' exchange.
constexpr std::int64_t kMinUnits = 2;
/// Units up to which two blocks of a multiprocessor have two stages each at 64 rows of x.
constexpr std::int64_t kTwoBlocksBytes = 20 * 1024;
/// Units up to which (.86 zeros, evenly) half of a strip's steps have nothing left beside the pairs.
constexpr std::int64_t kSkipsLeftBytes = 11 * 1024;

std::int64_t tiles(std::int64_t rows) { return div_up(rows, std::int64_t{kTileRows}); }
fused::StreamK divide(std::int64_t rows, std::int64_t cols) {
  return fused::divide_work(tiles(rows), div_up(cols, std::int64_t{kUnitCols}), kMinUnits, kRuns);
}

std::int64_t rows_of_launch(std::int64_t tokens) {
  return tokens <= 8 ? 8 : tokens <= 16 ? 16 : tokens <= 32 ? 32 : tokens <= 64 ? 64 : 128;
}

std::int64_t workspace_bytes(WeightFormat, std::int64_t rows, std::int64_t cols, std::int64_t tokens) {
  return fused::exchange_bytes(divide(rows, cols), tiles(rows) * kTileWarps,
                               kTileRows * rows_of_launch(tokens));
}

/// Units are counted in 32 bits, and pieces of x four to a unit.
bool can_run(const LinearArgs& args) {
  const WeightView& w = args.weight;
  return w.format.encoding == Encoding::kPairs24 && sm90::can_run(args) &&
         num_tiles(w.format.encoding, w.rows, w.cols) <= std::numeric_limits<std::int32_t>::max() / 4;
}

static_assert(sm90::kUnitCols == 64, "the columns of a box of map_activations");

template <class S>
void launch(const LinearArgs& args, const Product& p, cudaStream_t stream) {
  const CUtensorMap x = sm90::map_activations(args.x, S::kTokens);
  const auto kernel =
      args.weight.format.dtype == DType::kBF16 ? product_kernel<S, true> : product_kernel<S, false>;
  const auto blocks = static_cast<unsigned>(div_up(p.work.blocks, S::kRunsOfBlock));
  launch_kernel(stream, Overlap::kAllowed, kernel, dim3(blocks), S::kThreads, S::kSharedBytes, p, x);
}

template <bool kSkipsLeft>
void launch_for_rows(const LinearArgs& args, const Product& p, cudaStream_t stream, std::int64_t unit_bytes) {
  switch (rows_of_launch(args.x.rows)) {
    case 8:
      return launch<Shape<8, 2, kSkipsLeft>>(args, p, stream);
    case 16:
      return launch<Shape<16, 2, kSkipsLeft>>(args, p, stream);
    case 32:
      return launch<Shape<32, 2, kSkipsLeft>>(args, p, stream);
    case 64:
      if (kSkipsLeft || unit_bytes <= kTwoBlocksBytes)
        return launch<Shape<64, 2, kSkipsLeft>>(args, p, stream);
      return launch<Shape<64, 1, false>>(args, p, stream);
    default:
      return launch<Shape<128, 1, kSkipsLeft>>(args, p, stream);
  }
}

void run(const LinearArgs& args, std::span<std::byte> workspace, cudaStream_t stream) {
  const WeightView& w = args.weight;
  const std::int64_t units = num_tiles(w.format.encoding, w.rows, w.cols);
  const Product p{.units = w.data.data(),
                  .table = detail::tile_table_of(w),
                  .unit_rows = static_cast<std::int32_t>(div_up(w.rows, kPairsTileRows)),
                  .work = divide(w.rows, w.cols),
                  .exchange = fused::start_exchange(workspace, tiles(w.rows) * kTileWarps, stream),
                  .out = fused::lower_output(args),
                  .steps = {128, 64, 32, 16, 8, 4, 2, 1}};
  const std::int64_t unit_bytes = static_cast<std::int64_t>(w.data.size()) / units;
  if (unit_bytes <= kSkipsLeftBytes) {
    launch_for_rows<true>(args, p, stream, unit_bytes);
  } else {
    launch_for_rows<false>(args, p, stream, unit_bytes);
  }
}

}  // namespace

const FusedKernel kPairs24Sm90 = {.name = "pairs24_sm90",
                                  .encoding = Encoding::kPairs24,
                                  .min_compute_capability = 90,
                                  .max_compute_capability = 90,
                                  .max_rows = kMaxTokens,
                                  .can_run = can_run,
                                  .workspace_bytes = workspace_bytes,
                                  .run = run};

}  // namespace sluice::kernels
