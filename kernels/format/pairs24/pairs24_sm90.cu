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

/// Of a tile, in any Shape.
constexpr std::int64_t kMostTileWarps = 16;

/// Fewest units worth a run's share of the sums' exchange.
constexpr std::int64_t kMinUnits = 2;

/// `body` of the Shape for so many rows of x. Two small blocks where registers allow, since one starts while
/// the other ends; of one block as many warpgroups as have room for their sums. KERNELS.md has the others'
/// times.
template <class Body>
auto with_shape(std::int64_t tokens, const Body& body) {
  switch (sm90::rows_of_launch(tokens)) {
    case 8:
      return body(Shape<8, 2, 2>{});
    case 16:
      return body(Shape<16, 2, 2>{});
    case 32:
      return body(Shape<32, 1, 4>{});
    case 64:
      return body(Shape<64, 1, 3>{});
    default:
      return body(Shape<128, 1, 2>{});
  }
}

template <class S>
std::int64_t tiles(std::int64_t rows) {
  return div_up(rows, std::int64_t{S::kTileRows});
}
template <class S>
fused::StreamK divide(std::int64_t rows, std::int64_t cols) {
  return fused::divide_work(tiles<S>(rows), div_up(cols, std::int64_t{kUnitCols}), kMinUnits, S::kBlocks);
}

/// A counter for each strip, and for those that the last tile may lack: that covers fewer rows of x as well,
/// whose tiles are others.
FusedMemoryBytes memory_bytes(WeightFormat, std::int64_t rows, std::int64_t cols, std::int64_t tokens) {
  return with_shape(tokens, [&]<class S>(S) {
    return fused::exchange_bytes(kMostTileWarps + div_up(rows, kPairsStripRows), divide<S>(rows, cols).blocks,
                                 std::int64_t{S::kTileRows} * S::kTokens);
  });
}

/// Units are counted in 32 bits, and pieces of x four to a unit.
bool can_run(const LinearArgs& args) {
  const WeightView& w = args.weight;
  return w.format.encoding == Encoding::kPairs24 && sm90::can_run(args) &&
         num_tiles(w.format.encoding, w.rows, w.cols) <= std::numeric_limits<std::int32_t>::max() / 4;
}

static_assert(sm90::kUnitCols == 64, "the columns of a box of map_activations");

template <class S>
void launch(const LinearArgs& args, const FusedMemory& memory, cudaStream_t stream) {
  const WeightView& w = args.weight;
  const FusedMemoryBytes needed = memory_bytes(w.format, w.rows, w.cols, args.x.rows);
  const Product p{.units = w.data.data(),
                  .table = detail::tile_table_of(w),
                  .unit_rows = static_cast<std::int32_t>(div_up(w.rows, kPairsTileRows)),
                  .work = divide<S>(w.rows, w.cols),
                  .exchange = fused::exchange_in(memory, needed),
                  .out = fused::lower_output(args),
                  .steps = {128, 64, 32, 16, 8, 4, 2, 1}};
  const CUtensorMap x = sm90::map_activations(args.x, S::kTokens);
  const auto kernel = w.format.dtype == DType::kBF16 ? product_kernel<S, true> : product_kernel<S, false>;
  launch_kernel(stream, Overlap::kAllowed, kernel, dim3(static_cast<unsigned>(p.work.blocks)), S::kThreads,
                S::kSharedBytes, p, x);
}

void run(const LinearArgs& args, const FusedMemory& memory, cudaStream_t stream) {
  with_shape(args.x.rows, [&]<class S>(S) { launch<S>(args, memory, stream); });
}

}  // namespace

const FusedKernel kPairs24Sm90 = {.name = "pairs24_sm90",
                                  .encoding = Encoding::kPairs24,
                                  .min_compute_capability = 90,
                                  .max_compute_capability = 90,
                                  .max_rows = sm90::kMaxTokens,
                                  .can_run = can_run,
                                  .memory_bytes = memory_bytes,
                                  .run = run};

}  // namespace sluice::kernels
