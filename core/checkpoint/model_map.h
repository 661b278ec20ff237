// Which tensor of a checkpoint is which tensor of the model. Pure functions, thread-safe.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "core/checkpoint/reader.h"
#include "core/model/spec.h"

namespace sluice {

struct ModelMap {
  /// Per entry of model_tensors(spec): the index of its tensor in the checkpoint.
  std::vector<std::size_t> source;
  /// kBF16 if every mapped tensor is bf16, else kF16: what `convert` stores matrices as.
  DType weight_dtype = DType::kF16;
};

/// Matches `tensors` with model_tensors(spec) by canonical name and shape; fp16, bf16 and fp32 are accepted,
/// in any mixture. Throws Error{kInvalidArgument} that lists every problem: tensors that are missing, not
/// part of the model, there twice, of another shape (both are shown) or of another element type.
ModelMap map_model_tensors(const ModelSpec& spec, std::span<const CheckpointTensor> tensors);

}  // namespace sluice
