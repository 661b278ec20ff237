#include "offload/weights/weight_source.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <thread>

#include "kernels/device/cpu/thread_pool.h"
#include "kernels/format/random_matrix.h"

namespace sluice::offload {

WeightSource::WeightSource(const ModelSource& source) {
  if (source.random_spec) {
    make_synthetic(source);
    return;
  }
  store_ = source.store;
  manifest_ = read_manifest(store_);
  spec_ = manifest_.spec;
  for (const StoredTensor& tensor : manifest_.tensors)
    tensors_.push_back({.spec = tensor.spec, .format = tensor.format, .bytes = tensor.bytes, .tiles = {}});
}

void WeightSource::make_synthetic(const ModelSource& source) {
  synthetic_ = true;
  seed_ = source.random_seed;
  spec_ = *source.random_spec;
  validate(spec_);
  // Masks repeat from layer to layer, so each kind of matrix is counted once.
  std::map<std::string, std::shared_ptr<const kernels::TileSizes>> counted;
  std::optional<kernels::ThreadPool> pool;
  for (const TensorSpec& tensor : model_tensors(spec_)) {
    const kernels::MatrixRule rule = kernels::rule_for(source.random_formats, spec_, tensor);
    SourceTensor result;
    result.spec = tensor;
    result.format = {rule.encoding, spec_.weight_dtype};
    result.sparsity = rule.prune.sparsity;
    if (has_fixed_size(rule.encoding)) {
      result.bytes = weight_bytes(result.format, tensor.rows, tensor.cols);
    } else {
      const kernels::RandomMatrix matrix{tensor, spec_, result.format, rule.prune.sparsity, seed_};
      auto& tiles = counted[kernels::mask_name(matrix) + weight_format_name(result.format)];
      if (!tiles) {
        if (!pool) pool.emplace(static_cast<int>(std::max(1U, std::thread::hardware_concurrency())));
        tiles = std::make_shared<kernels::TileSizes>(kernels::random_tiles(matrix, *pool));
      }
      result.tiles = tiles;
      result.bytes = kernels::bytes_of_tiles(*tiles) + tile_table_bytes(std::ssize(*tiles));
    }
    tensors_.push_back(std::move(result));
  }
}

std::vector<policy::TensorSize> WeightSource::sizes() const {
  std::vector<policy::TensorSize> result;
  for (const SourceTensor& tensor : tensors_) {
    result.push_back({tensor.spec.unit, tensor.bytes, tensor.spec.is_vector});
  }
  return result;
}

}  // namespace sluice::offload
