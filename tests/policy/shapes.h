// Model specs and runs that several policy tests plan with.
#pragma once

#include <vector>

#include "core/format.h"
#include "policy/hardware.h"
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

/// Rates that do not disturb each other and steps without overhead, so that sums are exact.
inline HardwareProfile plain_machine() {
  HardwareProfile hardware;
  hardware.link.h2d = {{1, 10}, {1024, 10}};
  hardware.link.d2h = {{1, 10}, {1024, 10}};
  hardware.disk.read = {{1, 1024, 1}};
  hardware.disk.write = {{1, 1024, 1}};
  hardware.beside = {};
  hardware.overheads = {0, 0, 0, 0, 0};
  return hardware;
}

}  // namespace sluice::policy::testing
