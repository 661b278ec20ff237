#include <array>

#include "kernels/device/cuda/launch_kernel.cuh"
#include "kernels/format/cuda/sm90_host.h"
#include "kernels/format/quantised/fused_sm90.cuh"
#include "kernels/format/quantised/fused_sm90.h"

namespace sluice::kernels {
namespace {

using fused::CodeKind;
using fused::QuantMaps;
using fused::QuantProduct;
using fused::StreamK;

constexpr int kTileRows = 256, kParts = 16, kUnitBytes = 128;
/// Fewest units worth a thread block's start and its share of the sums' exchange.
constexpr std::int64_t kMinUnits = 2;

std::int64_t row_tiles(std::int64_t rows) { return fused::div_up(rows, kTileRows); }

StreamK divide(const QuantLayout& layout, std::int64_t rows) {
  return fused::divide_work(row_tiles(rows), fused::div_up(layout.row_bytes, kUnitBytes), kMinUnits, 1);
}

FusedMemoryBytes memory_bytes(WeightFormat format, std::int64_t rows, std::int64_t cols,
                              std::int64_t tokens) {
  return fused::exchange_bytes(row_tiles(rows) * kParts,
                               divide(quant_layout(format.encoding, cols), rows).blocks,
                               kTileRows * fused::token_tiles(tokens) * 8);
}

/// x comes by tensor copies.
bool can_run(const LinearArgs& args) {
  return fused::can_multiply_quantised(args) && fused::has_aligned_x(args);
}

QuantMaps map_operands(const QuantProduct& p, const LinearArgs& args) {
  const std::int64_t full = p.rows / kQuantBlockRows, left = p.rows % kQuantBlockRows;
  sm90::ByteBlocks bytes = {.data = p.weight,
                            .row_bytes = p.row_bytes,
                            .rows = kQuantBlockRows,
                            .blocks = full,
                            .block_bytes = p.block_bytes};
  QuantMaps maps = {};
  maps.full_blocks = static_cast<std::int32_t>(full);
  maps.x = sm90::map_activations(args.x, fused::token_tiles(args.x.rows) * 8);
  if (full > 0) maps.full = sm90::map_byte_blocks(bytes);
  if (left > 0) {
    bytes.data += full * p.block_bytes;
    bytes.rows = left;
    bytes.blocks = 1;
    maps.last = sm90::map_byte_blocks(bytes);
  }
  return maps;
}

template <class Tile>
void launch(const QuantProduct& p, const QuantMaps& maps, cudaStream_t stream) {
  static_assert(Tile::kRows == kTileRows && Tile::kRowParts == kParts && Tile::kUnitBytes == kUnitBytes);
  launch_kernel(stream, Overlap::kAllowed, fused::quant_product_sm90<Tile>,
                dim3(static_cast<unsigned>(p.work.blocks)), Tile::kThreads, Tile::kSharedBytes, p, maps);
}

template <class T, CodeKind kKind>
void launch_for_tokens(const QuantProduct& p, const QuantMaps& maps, cudaStream_t stream) {
  switch (fused::token_tiles(p.out.tokens)) {
    case 1:
      return launch<fused::QuantTileSm90<T, kKind, 8>>(p, maps, stream);
    case 2:
      return launch<fused::QuantTileSm90<T, kKind, 16>>(p, maps, stream);
    case 4:
      return launch<fused::QuantTileSm90<T, kKind, 32>>(p, maps, stream);
    default:
      return launch<fused::QuantTileSm90<T, kKind, 64>>(p, maps, stream);
  }
}

template <class T>
void launch_for_kind(CodeKind kind, const QuantProduct& p, const QuantMaps& maps, cudaStream_t stream) {
  switch (kind) {
    case CodeKind::kBytes:
      return launch_for_tokens<T, CodeKind::kBytes>(p, maps, stream);
    case CodeKind::kNibbles:
      return launch_for_tokens<T, CodeKind::kNibbles>(p, maps, stream);
    case CodeKind::kNibblesFromMinimum:
      return launch_for_tokens<T, CodeKind::kNibblesFromMinimum>(p, maps, stream);
  }
}

void run(const LinearArgs& args, const FusedMemory& memory, cudaStream_t stream) {
  const WeightView& weight = args.weight;
  const QuantLayout layout = quant_layout(weight.format.encoding, weight.cols);
  const FusedMemoryBytes needed = memory_bytes(weight.format, weight.rows, weight.cols, args.x.rows);
  const QuantProduct p = fused::lower_quant_product(args, layout, divide(layout, weight.rows),
                                                    fused::exchange_in(memory, needed));
  const QuantMaps maps = map_operands(p, args);
  const CodeKind kind = fused::code_kind(layout);
  if (weight.format.dtype == DType::kBF16) {
    launch_for_kind<__nv_bfloat16>(kind, p, maps, stream);
  } else {
    launch_for_kind<__half>(kind, p, maps, stream);
  }
}

constexpr FusedKernel kernel(std::string_view name, Encoding encoding) {
  return {.name = name,
          .encoding = encoding,
          .min_compute_capability = 90,
          .max_compute_capability = 90,
          .max_rows = fused::kMaxQuantTokens,
          .can_run = can_run,
          .memory_bytes = memory_bytes,
          .run = run};
}

constexpr std::array kKernels = {
    kernel("int8_sm90", Encoding::kInt8),
    kernel("int8_g128_sm90", Encoding::kInt8G128),
    kernel("int4_g64_sm90", Encoding::kInt4G64),
    kernel("int4_g128_sm90", Encoding::kInt4G128),
    kernel("int4_sym_g64_sm90", Encoding::kInt4SymG64),
    kernel("int4_sym_g128_sm90", Encoding::kInt4SymG128),
};

}  // namespace

std::span<const FusedKernel> quantised_sm90_kernels() { return kKernels; }

}  // namespace sluice::kernels
