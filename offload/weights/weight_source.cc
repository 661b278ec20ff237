#include "offload/weights/weight_source.h"

namespace sluice::offload {

WeightSource::WeightSource(const ModelSource& source) {
  if (source.random_spec) {
    synthetic_ = true;
    seed_ = source.random_seed;
    spec_ = *source.random_spec;
    validate(spec_);
    const WeightFormat format{Encoding::kDense, spec_.weight_dtype};
    for (const TensorSpec& tensor : model_tensors(spec_)) {
      tensors_.push_back({tensor, format, weight_bytes(format, tensor.rows, tensor.cols)});
    }
    return;
  }
  store_ = source.store;
  manifest_ = read_manifest(store_);
  spec_ = manifest_.spec;
  for (const StoredTensor& tensor : manifest_.tensors)
    tensors_.push_back({tensor.spec, tensor.format, tensor.bytes});
}

std::vector<policy::TensorSize> WeightSource::sizes() const {
  std::vector<policy::TensorSize> result;
  for (const SourceTensor& tensor : tensors_) {
    result.push_back({tensor.spec.unit, tensor.bytes, tensor.spec.is_vector});
  }
  return result;
}

}  // namespace sluice::offload
