// Linear layer over a stored weight: the contract. No device types.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "core/matrix.h"
#include "core/model/spec.h"
#include "kernels/device/stream.h"
#include "kernels/format/weight_view.h"

namespace sluice::kernels {

enum class Epilogue : std::uint8_t { kNone, kRelu, kGelu, kGeluTanh };
Epilogue to_epilogue(Activation activation);

/// y = epilogue(x W^T + bias) + residual
///
/// Shapes    x [num_tokens, in]; weight [out, in]; bias [out] or absent; residual, y [num_tokens, out].
///
/// Types     x, residual, y the device's activation type (fp32 on CPU); weight any WeightFormat; bias fp16 or
///           bf16. On CUDA x and weight are both fp16 or both bf16, and y may also be fp32 if there is no
///           residual.
///
/// Encoded   A weight that is not dense is expanded in slices into `scratch`, each ahead of its product; the
///           result is that of the expanded matrix, bit by bit on CPU. On CUDA a kernel that reads the
///           stored form takes its place where it was measured to be faster
///           (kernels/ops/linear_paths_cuda.h); weight and scratch start at multiples of 16 there, and inside
///           a step both are used from the step's beginning on, not in stream order.
///
/// Aliasing  y may be residual; y and x are disjoint.
///
/// Rows      On CPU every dot product uses the same lanes, FMA order and final tree whatever num_tokens is;
///           on CUDA a row's bits do not depend on num_tokens if the stream's BatchInvariance is kOn.
///
/// Rounding  On CUDA sums are fp32. Where the library cannot finish the job (gelu, a residual after an
///           activation, a bias of another type than y), the product is rounded to y's type before it.
struct LinearArgs {
  ConstMatrixView x = {};
  WeightView weight = {};
  ConstVectorView bias = {};
  Epilogue epilogue = Epilogue::kNone;
  ConstMatrixView residual = {};  ///< data null: none
  MatrixView y = {};
  std::span<std::byte> scratch =
      {};  ///< up to expansion_bytes (kernels/ops/expand.h), at least for a slice; none for a dense one
};

std::string why_unsupported(const LinearArgs& args, DeviceKind kind);
void linear(const LinearArgs& args, Stream& stream);

/// Layers over the same x, without epilogue and residual: q, k and v. The result is that of `linear` for
/// each; CUDA makes one product of them where their shapes are equal, and weights, biases and results lie at
/// equal distances.
void linear_group(std::span<const LinearArgs> layers, Stream& stream);

}  // namespace sluice::kernels
