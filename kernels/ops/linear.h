// Linear layer over a stored weight: the contract. No device types.
#pragma once

#include <string>

#include "core/matrix.h"
#include "core/model/spec.h"
#include "kernels/device/stream.h"
#include "kernels/format/weight_view.h"

namespace sluice::kernels {

enum class Epilogue : std::uint8_t { kNone, kRelu, kGelu, kGeluTanh };
Epilogue to_epilogue(Activation activation);

/// y = epilogue(x W^T + bias) + residual
/// Shapes    x [num_tokens, in]; weight [out, in]; bias [out] or absent; residual, y [num_tokens, out].
/// Types     x, residual, y the device's activation type (fp32 on CPU); weight any WeightFormat; bias fp16 or
/// bf16. Aliasing  y may be residual; y and x are disjoint. On CPU every dot product uses the same lanes, FMA
/// order and final tree whatever num_tokens is.
struct LinearArgs {
  ConstMatrixView x = {};
  WeightView weight = {};
  ConstVectorView bias = {};
  Epilogue epilogue = Epilogue::kNone;
  ConstMatrixView residual = {};  ///< data null: none
  MatrixView y = {};
};

std::string why_unsupported(const LinearArgs& args, DeviceKind kind);
void linear(const LinearArgs& args, Stream& stream);

}  // namespace sluice::kernels
