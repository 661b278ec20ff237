// Which format each matrix of a model gets, and what is pruned first: the options of `convert` and `prune`,
// and the file that `--formats` names. Pure functions, thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/config/fields.h"
#include "core/config/format_names.h"
#include "core/format.h"
#include "core/model/spec.h"
#include "kernels/format/prune.h"

namespace sluice::kernels {

/// Changes the rule for some matrices; of several that match, a later one wins.
struct FormatOverride {
  std::string layers;   ///< "0-3,95"; empty: all
  std::string tensors;  ///< "q_proj,fc1"; empty: all
  std::optional<Encoding> format = {};
  std::optional<double> sparsity = {};
  std::optional<PruneScope> prune_per = {};
};
template <class Visitor>
void visit_fields(Visitor& visit, FormatOverride& rule) {
  visit("layers", rule.layers, "decoder layers, as 0-3,95; empty: all");
  visit("tensors", rule.tensors, "of q_proj, k_proj, v_proj, out_proj, fc1, fc2, as q_proj,fc1; empty: all");
  visit("format", rule.format, "encoding of these matrices");
  visit("sparsity", rule.sparsity, "share of zeros after pruning", between(0, 1));
  visit("prune_per", rule.prune_per, "where the smallest weights are looked for");
}

/// The matrices of decoder layers are stored in `format`, pruned to `sparsity` before. Embeddings, the
/// vocabulary matrix and vectors stay dense.
struct FormatConfig {
  Encoding format = Encoding::kDense;
  double sparsity = 0;
  PruneScope prune_per = PruneScope::kRow;
  bool fake = false;
  std::uint64_t fake_seed = 0;
  /// Matrices that `format` leaves dense become 4-bit: `int4_g64`, or `bitmap_int4` if more than half of a
  /// sample of their rows is zero, because groups with a minimum lose zeros.
  bool compress = false;
  std::vector<FormatOverride> overrides;
};
template <class Visitor>
void visit_fields(Visitor& visit, FormatConfig& config) {
  visit("format", config.format, "encoding of the decoder layers' matrices");
  visit("sparsity", config.sparsity, "share of zeros after pruning; 0: what is zero already", between(0, 1));
  visit("prune_per", config.prune_per,
        "the smallest weights of each row, each 128 x 64 tile, or the matrix go");
  visit("fake", config.fake, "random masks instead of the smallest weights, for benchmarks");
  visit("fake_seed", config.fake_seed, "of the random masks");
  visit("compress", config.compress,
        "dense matrices become 4-bit, in a format that keeps zeros where there are many");
  visit("overrides", config.overrides, "other rules for some layers and tensors");
}

struct MatrixRule {
  Encoding encoding = Encoding::kDense;
  PruneRule prune;
};

/// Whether any matrix is pruned.
bool prunes(const FormatConfig& config);
/// Throws Error{kInvalidArgument} for settings that contradict each other.
void validate(const FormatConfig& config);

/// Whether a tensor may be stored in another format than dense: a matrix of a decoder layer.
bool can_be_encoded(const TensorSpec& tensor);
/// The rule for `tensor`; dense and unpruned unless can_be_encoded. Throws Error{kInvalidArgument} for layers
/// and tensors that are not written as above, or do not exist in `spec`.
MatrixRule rule_for(const FormatConfig& config, const ModelSpec& spec, const TensorSpec& tensor);

}  // namespace sluice::kernels
