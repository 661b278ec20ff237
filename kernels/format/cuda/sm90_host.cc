#include "kernels/format/cuda/sm90_host.h"

#include <algorithm>
#include <atomic>
#include <limits>

#include "core/error.h"
#include "core/units.h"
#include "kernels/device/cuda/check.h"
#include "kernels/format/cuda/result_pairs.h"

namespace sluice::kernels::sm90 {
namespace {

constexpr std::int64_t kCopyElements = 8;  // of x, in 16 bytes

std::int64_t row_blocks(std::int64_t rows) { return div_up(rows, std::int64_t{kUnitRows}); }

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);
EncodeTiled encode_tiled() {
  static const EncodeTiled function = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
    CUDA_CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault,
                                                &result));
    if (result != cudaDriverEntryPointSuccess)
      throw_cuda_failure(cudaErrorSymbolNotFound, "cuTensorMapEncodeTiled");
    return reinterpret_cast<EncodeTiled>(found);
  }();
  return function;
}

bool is_aligned(const void* data, std::int64_t bytes) {
  return reinterpret_cast<std::uintptr_t>(data) % static_cast<std::uint64_t>(bytes) == 0;
}

}  // namespace

int num_multiprocessors() {
  constexpr int kDevices = 64;
  static std::atomic<int> counts[kDevices];
  int device = 0;
  CUDA_CHECK(cudaGetDevice(&device));
  SLUICE_ASSERT(device < kDevices);
  int count = counts[device].load(std::memory_order_relaxed);
  if (count == 0) {
    CUDA_CHECK(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
    count = std::min(count, kMaxBlocks);
    counts[device].store(count, std::memory_order_relaxed);
  }
  return count;
}

bool can_run(const LinearArgs& args) {
  const WeightView& w = args.weight;
  const DType dtype = w.format.dtype;
  const bool has_residual = args.residual.data != nullptr;
  if (args.x.dtype != dtype || (args.y.dtype != dtype && (args.y.dtype != DType::kF32 || has_residual)))
    return false;
  if (has_residual && args.residual.dtype != dtype) return false;
  if (args.bias && args.bias.dtype != DType::kF16 && args.bias.dtype != DType::kBF16) return false;
  if (args.x.rows < 1 || args.x.rows > kMaxTokens || w.rows < 1 || w.cols < 1) return false;
  constexpr std::int64_t kMaxUnits = std::numeric_limits<int>::max() / 4;
  const std::int64_t per_row = div_up(w.cols, std::int64_t{kUnitCols});
  if (row_blocks(w.rows) * per_row > kMaxUnits) return false;
  // The tensor copy's terms; the stride of a single row means nothing.
  const bool strided = args.x.rows == 1 || args.x.stride % kCopyElements == 0;
  return strided && is_aligned(args.x.data, 16) && is_aligned(w.data.data(), 16);
}

FusedMemoryBytes memory_bytes(WeightFormat, std::int64_t weight_rows, std::int64_t, std::int64_t rows) {
  return fused::exchange_bytes(row_blocks(weight_rows), num_multiprocessors(),
                               kUnitRows * rows_of_launch(rows));
}

ProductParams lower(const LinearArgs& args, const FusedMemory& memory) {
  const WeightView& w = args.weight;
  const FusedMemoryBytes needed = memory_bytes(w.format, w.rows, w.cols, args.x.rows);
  const std::int64_t tiles = num_tiles(w.format.encoding, w.rows, w.cols);
  const std::int64_t table_bytes = tile_table_bytes(tiles);
  const std::int64_t per_row = div_up(w.cols, std::int64_t{kUnitCols});
  return {.stored = {.tiles = w.data.data(),
                     .table = reinterpret_cast<const std::uint32_t*>(
                         w.data.data() + static_cast<std::int64_t>(w.data.size()) - table_bytes),
                     .num_tiles = static_cast<int>(tiles),
                     .tiles_per_row = static_cast<int>(per_row),
                     .num_units = static_cast<int>(row_blocks(w.rows) * per_row)},
          .result = {.bias = args.bias.data,
                     .residual = args.residual.data,
                     .y = args.y.data,
                     .residual_stride = args.residual.stride,
                     .y_stride = args.y.stride,
                     .rows = static_cast<int>(w.rows),
                     .num_tokens = static_cast<int>(args.x.rows),
                     .epilogue = args.epilogue,
                     .bf16_bias = args.bias.dtype == DType::kBF16,
                     .f32_y = args.y.dtype == DType::kF32,
                     .pairs = has_result_pairs(args)},
          .exchange = fused::exchange_in(memory, needed)};
}

CUtensorMap map_activations(const ConstMatrixView& x, int tokens) {
  const auto type =
      x.dtype == DType::kBF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
  const cuuint64_t dims[2] = {static_cast<cuuint64_t>(x.cols), static_cast<cuuint64_t>(x.rows)};
  const std::int64_t stride = x.rows == 1 ? align_up(x.cols, kCopyElements) : x.stride;
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(stride * 2)};
  const cuuint32_t box[2] = {kUnitCols, static_cast<cuuint32_t>(tokens)};
  const cuuint32_t steps[2] = {1, 1};
  CUtensorMap map;
  const CUresult result = encode_tiled()(
      &map, type, 2, const_cast<std::byte*>(x.data), dims, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
      CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) throw_cuda_failure(cudaErrorInvalidValue, "cuTensorMapEncodeTiled");
  return map;
}

CUtensorMap map_byte_blocks(const ByteBlocks& bytes) {
  const cuuint64_t dims[3] = {static_cast<cuuint64_t>(bytes.row_bytes), static_cast<cuuint64_t>(bytes.rows),
                              static_cast<cuuint64_t>(bytes.blocks)};
  const cuuint64_t strides[2] = {static_cast<cuuint64_t>(bytes.row_bytes),
                                 static_cast<cuuint64_t>(bytes.block_bytes)};
  const cuuint32_t box[3] = {128, 128, 1};
  const cuuint32_t steps[3] = {1, 1, 1};
  CUtensorMap map;
  const CUresult result =
      encode_tiled()(&map, CU_TENSOR_MAP_DATA_TYPE_UINT8, 3, const_cast<std::byte*>(bytes.data), dims,
                     strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                     CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) throw_cuda_failure(cudaErrorInvalidValue, "cuTensorMapEncodeTiled");
  return map;
}

}  // namespace sluice::kernels::sm90
