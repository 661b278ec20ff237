#include <array>

#include "kernels/format/cuda/fused_launch.cuh"
#include "kernels/format/quantised/fused_cuda.h"
#include "kernels/format/quantised/fused_product.cuh"
#include "kernels/format/quantised/quantised.h"

namespace sluice::kernels {
namespace {

using fused::CodeKind;
using fused::QuantProduct;
using fused::StreamK;

constexpr std::int64_t kMaxTokens = 64;
constexpr int kTileRows = 256, kWarps = 8, kUnitBytes = 128;
/// Fewest units worth a thread block's start and its share of the sums' exchange.
constexpr std::int64_t kMinUnits = 2;
constexpr int kBlocksPerMultiprocessor = 2;

std::int64_t row_tiles(std::int64_t rows) { return fused::div_up(rows, kTileRows); }

StreamK divide(const QuantLayout& layout, std::int64_t rows) {
  return fused::divide_work(row_tiles(rows), fused::div_up(layout.row_bytes, kUnitBytes), kMinUnits,
                            kBlocksPerMultiprocessor);
}

int token_tiles(std::int64_t tokens) { return tokens <= 8 ? 1 : tokens <= 16 ? 2 : tokens <= 32 ? 4 : 8; }

std::int64_t workspace_bytes(WeightFormat format, std::int64_t rows, std::int64_t cols, std::int64_t tokens) {
  return fused::exchange_bytes(divide(quant_layout(format.encoding, cols), rows), row_tiles(rows) * kWarps,
                               kTileRows * token_tiles(tokens) * 8);
}

template <class Tile>
void launch(const QuantProduct& p, cudaStream_t stream) {
  static_assert(Tile::kRows == kTileRows && Tile::kWarps == kWarps && Tile::kUnitBytes == kUnitBytes);
  fused::launch<Tile>(fused::quant_product_kernel<Tile>, p, stream);
}

template <class T, CodeKind kKind>
void launch_for_tokens(const QuantProduct& p, cudaStream_t stream) {
  switch (token_tiles(p.out.tokens)) {
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
  if (layout.bits == 8) return launch_for_tokens<T, CodeKind::kBytes>(p, stream);
  if (layout.has_minimum) return launch_for_tokens<T, CodeKind::kNibblesFromMinimum>(p, stream);
  launch_for_tokens<T, CodeKind::kNibbles>(p, stream);
}

bool can_run(const LinearArgs& args) { return fused::can_multiply(args, kMaxTokens); }

void run(const LinearArgs& args, std::span<std::byte> workspace, cudaStream_t stream) {
  const WeightView& weight = args.weight;
  const QuantLayout layout = quant_layout(weight.format.encoding, weight.cols);
  const bool whole_row = weight.format.encoding == Encoding::kInt8;
  const QuantProduct p{.weight = weight.data.data(),
                       .x = args.x.data,
                       .x_stride = args.x.stride,
                       .block_bytes = layout.block_bytes(kQuantBlockRows),
                       .rows = static_cast<std::int32_t>(weight.rows),
                       .cols = static_cast<std::int32_t>(weight.cols),
                       .row_bytes = static_cast<std::int32_t>(layout.row_bytes),
                       .param_bytes = static_cast<std::int32_t>(layout.param_bytes),
                       .num_groups = static_cast<std::int32_t>(layout.num_groups),
                       .group_shift = whole_row                 ? 31
                                      : layout.group_cols == 64 ? 6
                                                                : 7,
                       .params_are_aligned = layout.param_bytes % 16 == 0,
                       .x_is_aligned = fused::has_aligned_x(args),
                       .work = divide(layout, weight.rows),
                       .exchange = fused::start_exchange(workspace, row_tiles(weight.rows) * kWarps, stream),
                       .out = fused::lower_output(args)};
  if (weight.format.dtype == DType::kBF16) {
    launch_for_kind<__nv_bfloat16>(layout, p, stream);
  } else {
    launch_for_kind<__half>(layout, p, stream);
  }
}

constexpr FusedKernel kernel(std::string_view name, Encoding encoding) {
  return {.name = name,
          .encoding = encoding,
          .max_rows = kMaxTokens,
          .can_run = can_run,
          .workspace_bytes = workspace_bytes,
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

std::span<const FusedKernel> quantised_fused_kernels() { return kKernels; }

}  // namespace sluice::kernels
