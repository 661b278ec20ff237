#include <algorithm>
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
constexpr std::int64_t kMostTileWarps = 24;

/// Fewest units worth a run's share of the sums' exchange.
constexpr std::int64_t kMinUnits = 2;

/// What most units of a matrix have beside pairs, as its bytes tell: with 80 % zeros in random places they
/// are .83 a weight, with 90 % .53.
PairsLeft most_units_left(const WeightView& w) {
  constexpr double kBytes = 0.68;
  const auto weights = static_cast<double>(w.rows) * static_cast<double>(w.cols);
  return static_cast<double>(w.data.size()) < kBytes * weights ? PairsLeft::kEntries : PairsLeft::kMasks;
}

/// `body` of the Shape for so many rows of x. With masks it is memory that decides up to 32 rows: two small
/// blocks where registers allow, since one starts while the other ends, or few warpgroups and more slots.
/// With entries units are small, and it takes all warpgroups that have room. KERNELS.md has the others'
/// times.
template <class Body>
auto with_shape(std::int64_t tokens, PairsLeft left, const Body& body) {
  const bool entries = left == PairsLeft::kEntries;
  switch (sm90::rows_of_launch(tokens)) {
    case 8:
      return entries ? body(Shape<8, 1, 6>{}) : body(Shape<8, 2, 2>{});
    case 16:
      return entries ? body(Shape<16, 1, 6>{}) : body(Shape<16, 2, 2>{});
    case 32:
      return entries ? body(Shape<32, 1, 4>{}) : body(Shape<32, 1, 3>{});
    case 64:
      return entries ? body(Shape<64, 1, 4>{}) : body(Shape<64, 1, 3>{});
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
template <class S>
FusedMemoryBytes memory_bytes(std::int64_t rows, std::int64_t cols) {
  return fused::exchange_bytes(kMostTileWarps + div_up(rows, kPairsStripRows), divide<S>(rows, cols).blocks,
                               std::int64_t{S::kTileRows} * S::kTokens);
}
FusedMemoryBytes most_memory_bytes(WeightFormat, std::int64_t rows, std::int64_t cols, std::int64_t tokens) {
  const auto bytes = [&](PairsLeft left) {
    return with_shape(tokens, left, [&]<class S>(S) { return memory_bytes<S>(rows, cols); });
  };
  const FusedMemoryBytes masks = bytes(PairsLeft::kMasks), entries = bytes(PairsLeft::kEntries);
  return {.counters = std::max(masks.counters, entries.counters),
          .scratch = std::max(masks.scratch, entries.scratch)};
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
  const FusedMemoryBytes needed = memory_bytes<S>(w.rows, w.cols);
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
  with_shape(args.x.rows, most_units_left(args.weight), [&]<class S>(S) { launch<S>(args, memory, stream); });
}

}  // namespace

const FusedKernel kPairs24Sm90 = {.name = "pairs24_sm90",
                                  .encoding = Encoding::kPairs24,
                                  .min_compute_capability = 90,
                                  .max_compute_capability = 90,
                                  .max_rows = sm90::kMaxTokens,
                                  .can_run = can_run,
                                  .memory_bytes = most_memory_bytes,
                                  .run = run};

}  // namespace sluice::kernels
