// Token and position embedding: the contract. No device types.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "core/matrix.h"
#include "kernels/device/stream.h"
#include "kernels/format/weight_view.h"

namespace sluice::kernels {

/// y[t,:] = table[ids[t],:], plus y[t,:] itself first if `accumulate`.
/// Used for tokens (table = embed_tokens) and for positions (table = embed_positions, ids = row numbers).
/// Shapes    ids [num_tokens]; table [rows, dim] dense fp16 or bf16; y [num_tokens, dim], any stride.
/// Types     y is the device's activation type (fp32 on CPU, fp16 or bf16 on CUDA); a sum is taken in fp32.
/// Ids are validated at admission; an id outside the table here throws Error{kInternal}. On CUDA `ids` is
/// device memory, which the host cannot look at: an id outside the table reads outside it.
struct EmbeddingArgs {
  std::span<const std::int32_t> ids = {};
  WeightView table = {};
  bool accumulate = false;
  MatrixView y = {};
};

std::string why_unsupported(const EmbeddingArgs& args, DeviceKind kind);
void embedding(const EmbeddingArgs& args, Stream& stream);

}  // namespace sluice::kernels
