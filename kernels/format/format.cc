#include "kernels/format/format.h"

#include <array>

#include "core/error.h"
#include "kernels/format/dense/dense.h"

namespace sluice::kernels {
namespace {

constexpr std::array kCodecs = {
    FormatCodec{WeightFormat::kDenseF16, dense_run_granule, dense_max_run_bytes, encode_dense_f16,
                decode_dense},
    FormatCodec{WeightFormat::kDenseBF16, dense_run_granule, dense_max_run_bytes, encode_dense_bf16,
                decode_dense},
};

}  // namespace

const FormatCodec& codec_of(WeightFormat format) {
  for (const FormatCodec& codec : kCodecs) {
    if (codec.format == format) return codec;
  }
  throw Error(Code::kUnsupported, fmt::format("weight format {} has no codec", weight_format_name(format)));
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
