// Layer normalisation: the contract. No device types.
#pragma once

#include <string>

#include "core/matrix.h"
#include "kernels/device/stream.h"

namespace sluice::kernels {

/// y[t,h] = (x[t,h] - mean_h(x[t])) / sqrt(var_h(x[t]) + eps) * gamma[h] + beta[h]   (Ba et al. 2016)
/// The variance is the biased one. gamma and beta may be absent (1 and 0).
/// Shapes    x, y [num_tokens, hidden_dim] row-major, any stride; gamma, beta [hidden_dim] fp16 or bf16.
/// Types     x, y the device's activation type (fp32 on CPU, fp16 or bf16 on CUDA); fp32 accumulation.
/// Aliasing  y may be x.
struct LayerNormArgs {
  ConstMatrixView x = {};
  ConstVectorView gamma = {};
  ConstVectorView beta = {};
  float eps = 1e-5F;
  MatrixView y = {};
};

std::string why_unsupported(const LayerNormArgs& args, DeviceKind kind);
void layer_norm(const LayerNormArgs& args, Stream& stream);

}  // namespace sluice::kernels
