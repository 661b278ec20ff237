#include "kernels/ops/operands.h"

#include "core/build_config.h"
#include "core/error.h"

namespace sluice::kernels {

void check_operand(const Stream& stream, const ConstMatrixView& matrix) {
  if (matrix.rows <= 0 || matrix.cols <= 0 || matrix.data == nullptr) return;
  check_operand(stream, matrix.data,
                ((matrix.rows - 1) * matrix.stride + matrix.cols) * dtype_bytes(matrix.dtype));
}

void check_operand(const Stream& stream, const MatrixView& matrix) {
  check_operand(stream, as_const(matrix));
}

void check_operand(const Stream& stream, const ConstVectorView& vector) {
  if (vector) check_operand(stream, vector.data, vector.size * dtype_bytes(vector.dtype));
}

void check_operand(const Stream& stream, const WeightView& weight) {
  check_operand(stream, weight.data.data(), static_cast<std::int64_t>(weight.data.size()));
}

std::string why_no_device(DeviceKind kind) {
  if (kind == DeviceKind::kCuda && !kWithCuda) return "this build has no CUDA device";
  return {};
}

std::string why_not_activation(const char* name, DType dtype, DeviceKind kind) {
  if (std::string reason = why_no_device(kind); !reason.empty()) return reason;
  if (kind == DeviceKind::kCuda) {
    if (dtype == DType::kF16 || dtype == DType::kBF16) return {};
    return fmt::format("{} is {}, must be f16 or bf16", name, dtype_name(dtype));
  }
  return why_not_logits(name, dtype, kind);
}

std::string why_not_logits(const char* name, DType dtype, DeviceKind kind) {
  if (std::string reason = why_no_device(kind); !reason.empty()) return reason;
  if (dtype == DType::kF32) return {};
  return fmt::format("{} is {}, must be {}", name, dtype_name(dtype), dtype_name(DType::kF32));
}

std::string why_not_shared_activation(const char* name, DType dtype, DeviceKind kind) {
  const bool floating = dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
  if (kind == DeviceKind::kCpu && floating) return {};
  return why_not_activation(name, dtype, kind);
}

std::string why_not_vector(const char* name, const ConstVectorView& vector) {
  if (!vector || vector.dtype == DType::kF16 || vector.dtype == DType::kBF16) return {};
  return fmt::format("{} is {}, must be f16 or bf16", name, dtype_name(vector.dtype));
}

std::string why_not_weight(const char* name, const WeightView& weight) {
  if (weight.format.encoding != Encoding::kDense) {
    return fmt::format("{} is {}, must be dense", name, weight_format_name(weight.format));
  }
  const std::int64_t expected = weight_bytes(weight.format, weight.rows, weight.cols);
  if (static_cast<std::int64_t>(weight.data.size()) == expected) return {};
  return fmt::format("{} [{}, {}] has {} bytes, must have {}", name, weight.rows, weight.cols,
                     weight.data.size(), expected);
}

std::string why_not_encoded_weight(const char* name, const WeightView& weight, DeviceKind kind) {
  if (weight.format.encoding == Encoding::kDense) return why_not_weight(name, weight);
  if (std::string reason = why_no_device(kind); !reason.empty()) return reason;
  const ByteRange range = weight_byte_range(weight.format, weight.rows, weight.cols);
  const auto bytes = static_cast<std::int64_t>(weight.data.size());
  if (bytes >= range.min && bytes <= range.max) return {};
  return fmt::format("{} [{}, {}] has {} bytes, must have {} to {}", name, weight.rows, weight.cols, bytes,
                     range.min, range.max);
}

void refuse_unless_empty(const char* op, const std::string& reason) {
  SLUICE_CHECK(reason.empty(), Code::kUnsupported, fmt::format("{}: {}", op, reason),
               "choose another device, weight format or activation type");
}

}  // namespace sluice::kernels
