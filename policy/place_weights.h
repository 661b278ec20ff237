// Which tier each weight tensor lives on. Pure, thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/tier.h"

namespace sluice::policy {

/// What placement must know of a tensor.
struct TensorSize {
  std::int64_t unit = 0;   ///< streaming unit, see core/model/spec.h
  std::int64_t bytes = 0;  ///< stored bytes
  bool is_vector = false;  ///< norms and biases
};

/// A tier for each tensor, in order. Tensors are placed whole; each matrix goes to the tier that is furthest
/// behind its asked share of the bytes seen so far, and that error is carried from layer to layer, so the
/// achieved share of the whole model is within one tensor of the asked one and the streamed bytes of the
/// layers are even. (FlexGen restarts its mid-point rule in every sub-layer, which makes "20" mean 8 %.)
/// Vectors, together less than 0.1 % of a model, go to the fastest tier that has a share, which keeps reads
/// long; their bytes count like any other.
std::vector<Tier> place_weights(std::span<const TensorSize> tensors, const PerTier<int>& percent);

}  // namespace sluice::policy
