// Where the bytes of a model's weights come from: a store, or a generator. Read-only after construction.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "core/store/manifest.h"
#include "kernels/format/format.h"
#include "offload/engine.h"
#include "policy/place_weights.h"

namespace sluice::offload {

/// One tensor of the model with its stored form.
struct SourceTensor {
  TensorSpec spec;
  WeightFormat format = WeightFormat::kDenseF16;
  std::int64_t bytes = 0;

  // Synthetic models only.
  double sparsity = 0;
  std::shared_ptr<const kernels::TileSizes> tiles;  ///< of a format of variable size
};

class WeightSource {
 public:
  /// Reads the manifest, or takes the random spec; the sizes of a synthetic model's sparse matrices are
  /// counted on all cores. Throws Error as read_manifest and rule_for do.
  explicit WeightSource(const ModelSource& source);

  const ModelSpec& spec() const { return spec_; }
  const std::vector<SourceTensor>& tensors() const { return tensors_; }  ///< in model_tensors order
  std::vector<policy::TensorSize> sizes() const;

  bool synthetic() const { return synthetic_; }
  std::uint64_t seed() const { return seed_; }
  const std::filesystem::path& store() const { return store_; }  ///< empty if synthetic
  const Manifest& manifest() const { return manifest_; }         ///< of the store

 private:
  void make_synthetic(const ModelSource& source);

  bool synthetic_ = false;
  std::uint64_t seed_ = 0;
  std::filesystem::path store_;
  Manifest manifest_;
  ModelSpec spec_;
  std::vector<SourceTensor> tensors_;
};

}  // namespace sluice::offload
