#include <array>

#include "kernels/format/quantised/fused_product_sm80.cuh"
#include "kernels/format/quantised/fused_sm80.h"

namespace sluice::kernels {
namespace {

using fused::CodeKind;
using fused::QuantProduct;
using fused::StreamK;

constexpr int kTileRows = 256, kWarps = 8, kUnitBytes = 128;
/// Fewest units worth a thread block's start and its share of the sums' exchange.
constexpr std::int64_t kMinUnits = 2;
constexpr int kBlocksPerMultiprocessor = 2;

std::int64_t row_tiles(std::int64_t rows) { return fused::div_up(rows, kTileRows); }

StreamK divide(const QuantLayout& layout, std::int64_t rows) {
  return fused::divide_work(row_tiles(rows), fused::div_up(layout.row_bytes, kUnitBytes), kMinUnits,
                            kBlocksPerMultiprocessor);
}

FusedMemoryBytes memory_bytes(WeightFormat format, std::int64_t rows, std::int64_t cols,
                              std::int64_t tokens) {
  return fused::exchange_bytes(row_tiles(rows) * kWarps,
                               divide(quant_layout(format.encoding, cols), rows).blocks,
                               kTileRows * fused::token_tiles(tokens) * 8);
}

template <class Tile>
void launch(const QuantProduct& p, cudaStream_t stream) {
  static_assert(Tile::kRows == kTileRows && Tile::kWarps == kWarps && Tile::kUnitBytes == kUnitBytes);
  fused::launch<Tile>(fused::quant_product_kernel<Tile>, p, stream);
}

template <class T, CodeKind kKind>
void launch_for_tokens(const QuantProduct& p, cudaStream_t stream) {
  switch (fused::token_tiles(p.out.tokens)) {
    case 1:
      return launch<fused::QuantTile<T, kKind, 1>>(p, stream);
    case 2:
      return launch<fused::QuantTile<T, kKind, 2>>(p, stream);
    case 4:
      return launch<fused::QuantTile<T, kKind, 4>>(p, stream);
    default:
      return launch<fused::QuantTile<T, kKind, 8>>(p, stream);
  }
}

template <class T>
void launch_for_kind(const QuantLayout& layout, const QuantProduct& p, cudaStream_t stream) {
  switch (fused::code_kind(layout)) {
    case CodeKind::kBytes:
      return launch_for_tokens<T, CodeKind::kBytes>(p, stream);
    case CodeKind::kNibbles:
      return launch_for_tokens<T, CodeKind::kNibbles>(p, stream);
    case CodeKind::kNibblesFromMinimum:
      return launch_for_tokens<T, CodeKind::kNibblesFromMinimum>(p, stream);
  }
}

void run(const LinearArgs& args, const FusedMemory& memory, cudaStream_t stream) {
  const WeightView& weight = args.weight;
  const QuantLayout layout = quant_layout(weight.format.encoding, weight.cols);
  const FusedMemoryBytes needed = memory_bytes(weight.format, weight.rows, weight.cols, args.x.rows);
  const QuantProduct p = fused::lower_quant_product(args, layout, divide(layout, weight.rows),
                                                    fused::exchange_in(memory, needed));
  if (weight.format.dtype == DType::kBF16) {
    launch_for_kind<__nv_bfloat16>(layout, p, stream);
  } else {
    launch_for_kind<__half>(layout, p, stream);
  }
}

constexpr FusedKernel kernel(std::string_view name, Encoding encoding) {
  return {.name = name,
          .encoding = encoding,
          .max_rows = fused::kMaxQuantTokens,
          .can_run = fused::can_multiply_quantised,
          .memory_bytes = memory_bytes,
          .run = run};
}

constexpr std::array kKernels = {
    kernel("int8_sm80", Encoding::kInt8),
    kernel("int8_g128_sm80", Encoding::kInt8G128),
    kernel("int4_g64_sm80", Encoding::kInt4G64),
    kernel("int4_g128_sm80", Encoding::kInt4G128),
    kernel("int4_sym_g64_sm80", Encoding::kInt4SymG64),
    kernel("int4_sym_g128_sm80", Encoding::kInt4SymG128),
};

}  // namespace

std::span<const FusedKernel> quantised_sm80_kernels() { return kKernels; }

}  // namespace sluice::kernels
