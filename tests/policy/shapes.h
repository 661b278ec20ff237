// Model specs and runs that several policy tests plan with.
#pragma once

#include <vector>

#include "core/format.h"
#include "policy/run_shape.h"

namespace sluice::policy::testing {

inline ModelSpec opt_spec(std::int64_t layers, std::int64_t hidden, std::int64_t heads,
                          std::int64_t vocab = 50272) {
  ModelSpec spec;
  spec.name = "test";
  spec.num_layers = layers;
  spec.hidden_dim = spec.embed_dim = hidden;
  spec.ffn_dim = 4 * hidden;
  spec.num_heads = spec.num_kv_heads = heads;
  spec.head_dim = hidden / heads;
  spec.vocab_size = vocab;
  spec.max_positions = 2048;
  return spec;
}

inline std::vector<TensorSize> tensor_sizes(const ModelSpec& spec) {
  std::vector<TensorSize> sizes;
  for (const TensorSpec& tensor : model_tensors(spec)) {
    sizes.push_back(
        {tensor.unit, weight_bytes(WeightFormat::kDenseF16, tensor.rows, tensor.cols), tensor.is_vector});
  }
  return sizes;
}

inline DeviceTraits test_traits() {
  DeviceTraits traits;
  traits.sample_scratch_bytes = 4096;
  traits.sample_row_bytes = 48;
  traits.sampled_row_bytes = 12;
  traits.top_token_bytes = 8;
  traits.weight_piece_bytes = 64 << 10;
  return traits;
}

}  // namespace sluice::policy::testing
