// The oracle: OPT's forward pass in plain loops and double precision, straight from the tensors of a store.
// It shares nothing with the engine but the store's reader. Thread-safe when const.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/model/spec.h"

namespace sluice::testing {

/// A matrix [feature][token]: the token is the inner index, so that loops over tokens run through memory.
struct Columns {
  std::int64_t features = 0, tokens = 0;
  std::vector<double> data;
  Columns(std::int64_t num_features, std::int64_t num_tokens)
      : features(num_features),
        tokens(num_tokens),
        data(static_cast<std::size_t>(num_features * num_tokens)) {}
  double* row(std::int64_t feature) { return data.data() + feature * tokens; }
  const double* row(std::int64_t feature) const { return data.data() + feature * tokens; }
};

class ReferenceModel {
 public:
  /// Throws what read_manifest and read_stored_tensor throw.
  explicit ReferenceModel(const std::filesystem::path& store);

  /// What becomes of a layer's K and V where they are made, before they are attended: rounding to the KV
  /// format. Layers count from 0.
  using KvStep = std::function<void(std::int64_t layer, Columns& k, Columns& v)>;

  /// [t][v] = log p(v | ids[0..t]).
  std::vector<std::vector<double>> log_probs(std::span<const std::int32_t> ids, const KvStep& kv_step) const;

  const ModelSpec& spec() const { return spec_; }

 private:
  const std::vector<double>* find(const std::string& name) const;
  Columns embed(std::span<const std::int32_t> ids) const;
  Columns linear(const Columns& x, const std::string& name, std::int64_t out_features) const;
  Columns norm(const Columns& x, const std::string& name) const;
  Columns attention(const Columns& q, const Columns& k, const Columns& v) const;
  void layer(Columns& x, std::int64_t number, const KvStep& kv_step) const;

  ModelSpec spec_;
  std::map<std::string, std::vector<double>> tensors_;
};

}  // namespace sluice::testing
