#include "kernels/format/format.h"

#include <array>

#include "core/error.h"
#include "kernels/format/bank_csl/bank_csl.h"
#include "kernels/format/bitmap/bitmap.h"
#include "kernels/format/dense/dense.h"
#include "kernels/format/pairs24/pairs24.h"
#include "kernels/format/quantised/quantised.h"
#include "kernels/format/tile_table.h"
#include "kernels/format/tiled_csl/tiled_csl.h"

namespace sluice::kernels {
namespace {

template <Encoding kEncoding>
constexpr FormatCodec kBitmapCodec = {
    kEncoding,
    bitmap_row_granule,
    [](std::int64_t num_rows, std::int64_t cols) { return bitmap_max_run_bytes(kEncoding, num_rows, cols); },
    [](const RowRun& run, std::span<std::byte> out, TileSizes& sizes) {
      return encode_bitmap(kEncoding, run, out, sizes);
    },
    check_bitmap,
    expand_bitmap,
};

template <Encoding kEncoding>
constexpr FormatCodec kQuantisedCodec = {
    kEncoding,
    quantised_row_granule,
    [](std::int64_t num_rows, std::int64_t cols) {
      return quantised_max_run_bytes(kEncoding, num_rows, cols);
    },
    [](const RowRun& run, std::span<std::byte> out, TileSizes&) {
      return encode_quantised(kEncoding, run, out);
    },
    check_quantised,
    expand_quantised,
};

constexpr std::array kCodecs = {
    FormatCodec{Encoding::kDense, dense_row_granule, dense_max_run_bytes, encode_dense, check_dense,
                expand_dense},
    FormatCodec{Encoding::kTiledCsl, tiled_csl_row_granule, tiled_csl_max_run_bytes, encode_tiled_csl,
                check_tiled_csl, expand_tiled_csl},
    FormatCodec{Encoding::kBankCsl, bank_csl_row_granule, bank_csl_max_run_bytes, encode_bank_csl,
                check_bank_csl, expand_bank_csl},
    FormatCodec{Encoding::kPairs24, pairs24_row_granule, pairs24_max_run_bytes, encode_pairs24, check_pairs24,
                expand_pairs24},
    kBitmapCodec<Encoding::kBitmap>,
    kQuantisedCodec<Encoding::kInt8>,
    kQuantisedCodec<Encoding::kInt8G128>,
    kQuantisedCodec<Encoding::kInt4G64>,
    kQuantisedCodec<Encoding::kInt4G128>,
    kQuantisedCodec<Encoding::kInt4SymG64>,
    kQuantisedCodec<Encoding::kInt4SymG128>,
    kBitmapCodec<Encoding::kBitmapInt8>,
    kBitmapCodec<Encoding::kBitmapInt4>,
};

}  // namespace

const FormatCodec& codec_of(Encoding encoding) {
  for (const FormatCodec& codec : kCodecs) {
    if (codec.encoding == encoding) return codec;
  }
  throw Error(Code::kUnsupported, fmt::format("weight format {} has no codec", encoding_name(encoding)));
}

std::vector<std::byte> encode_matrix(const TensorSpec& tensor, WeightFormat format,
                                     std::span<const std::uint16_t> values) {
  SLUICE_ASSERT(static_cast<std::int64_t>(values.size()) == tensor.rows * tensor.cols);
  const FormatCodec& codec = codec_of(format.encoding);
  std::vector<std::byte> bytes(static_cast<std::size_t>(codec.max_run_bytes(tensor.rows, tensor.cols)));
  TileSizes sizes;
  const std::int64_t used = codec.encode({&tensor, format.dtype, 0, tensor.rows, values}, bytes, sizes);
  bytes.resize(static_cast<std::size_t>(used));
  const std::vector<std::byte> table = encode_tile_table(sizes, tensor.name);
  bytes.insert(bytes.end(), table.begin(), table.end());
  return bytes;
}

void decode_matrix(const WeightView& weight, std::span<float> out) {
  const std::int64_t count = weight.rows * weight.cols;
  SLUICE_ASSERT(static_cast<std::int64_t>(out.size()) == count);
  std::vector<std::uint16_t> values(static_cast<std::size_t>(count));
  codec_of(weight.format.encoding).expand(weight, 0, weight.rows, values);
  if (weight.format.dtype == DType::kF16) {
    detail::widen_f16(reinterpret_cast<const Half*>(values.data()), count, out.data());
  } else {
    detail::widen_bf16(reinterpret_cast<const BFloat16*>(values.data()), count, out.data());
  }
}

WeightFormat dense_format_of(DType source, const TensorSpec& tensor) {
  switch (source) {
    case DType::kBF16:
      return WeightFormat::kDenseBF16;
    case DType::kF16:
    case DType::kF32:
    case DType::kF64:
      return WeightFormat::kDenseF16;
    default:
      throw Error(Code::kUnsupported,
                  fmt::format("tensor {}: {} elements are no floating-point numbers", tensor.name,
                              dtype_name(source)),
                  "give a checkpoint in fp16, bf16 or fp32");
  }
}

}  // namespace sluice::kernels
