// Checks that every operator makes on its operands before it dispatches. Thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "core/matrix.h"
#include "kernels/device/stream.h"
#include "kernels/format/weight_view.h"

namespace sluice::kernels {

/// Each throws Error{kInternal} if the operand is not inside the stream's arena; empty operands pass.
void check_operand(const Stream& stream, const ConstMatrixView& matrix);
void check_operand(const Stream& stream, const MatrixView& matrix);
void check_operand(const Stream& stream, const ConstVectorView& vector);
void check_operand(const Stream& stream, const WeightView& weight);

/// Empty, or "this build has no CUDA device". Pure.
std::string why_no_device(DeviceKind kind);

/// Empty, or why an operand cannot be used on `kind`: "x is f16, must be f32". Pure.
std::string why_not_activation(const char* name, DType dtype, DeviceKind kind);
/// For operators that the CPU runs for a CUDA device too: any floating type on the CPU.
std::string why_not_shared_activation(const char* name, DType dtype, DeviceKind kind);
/// Norm and bias vectors: absent, fp16 or bf16.
std::string why_not_vector(const char* name, const ConstVectorView& vector);
/// Logits are fp32 on every device.
std::string why_not_logits(const char* name, DType dtype, DeviceKind kind);
/// Dense weights of exactly rows * cols elements.
std::string why_not_weight(const char* name, const WeightView& weight);
/// The same for operators that take every encoding that `kind` can expand.
std::string why_not_encoded_weight(const char* name, const WeightView& weight, DeviceKind kind);

/// Throws Error{kUnsupported} "<op>: <reason>" unless `reason` is empty.
void refuse_unless_empty(const char* op, const std::string& reason);

/// The first non-empty reason.
template <class... Reasons>
std::string first_reason(Reasons... reasons) {
  std::string result;
  ((result.empty() ? void(result = std::move(reasons)) : void()), ...);
  return result;
}

}  // namespace sluice::kernels
