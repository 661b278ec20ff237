// Model specs as YAML (configs/models/*.yaml), for models that have no checkpoint here: synthetic weights and
// plans. The files are also built into the program, so that "opt-30b" is known everywhere. Thread-safe.
#pragma once

#include <array>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/config/fields.h"
#include "core/model/spec.h"

namespace sluice {

constexpr auto enum_names(Family) { return std::to_array<EnumName<Family>>({{Family::kOpt, "opt"}}); }

constexpr auto enum_names(Activation) {
  return std::to_array<EnumName<Activation>>(
      {{Activation::kRelu, "relu"}, {Activation::kGelu, "gelu"}, {Activation::kGeluTanh, "gelu_tanh"}});
}

/// The types that matrices are stored in.
constexpr auto enum_names(DType) {
  return std::to_array<EnumName<DType>>({{DType::kF16, "f16"}, {DType::kBF16, "bf16"}});
}

template <class Visitor>
void visit_fields(Visitor& visit, ModelSpec& spec) {
  const Bounds size = at_least(1);
  visit("name", spec.name, "for messages and reports");
  visit("family", spec.family, "how the layers are composed");
  visit("num_layers", spec.num_layers, "decoder layers", size);
  visit("hidden_dim", spec.hidden_dim, "width of the residual stream", size);
  visit("ffn_dim", spec.ffn_dim, "width inside the MLP", size);
  visit("num_heads", spec.num_heads, "attention heads", size);
  visit("num_kv_heads", spec.num_kv_heads, "heads of K and V; fewer than num_heads when queries share them",
        size);
  visit("head_dim", spec.head_dim, "width of one head", size);
  visit("vocab_size", spec.vocab_size, "rows of the embedding, padding rows included", size);
  visit("embed_dim", spec.embed_dim, "columns of the embedding; projected if it is not hidden_dim", size);
  visit("max_positions", spec.max_positions, "context length in tokens", size);
  visit("position_offset", spec.position_offset, "row of the position table that position 0 uses",
        at_least(0));
  visit("activation", spec.activation, "nonlinearity of the MLP");
  visit("has_bias", spec.has_bias, "linear layers have biases");
  visit("norm_affine", spec.norm_affine, "layer norms have weights and biases");
  visit("pre_norm", spec.pre_norm, "the norm stands before attention and MLP; false is post-LN");
  visit("final_norm", spec.final_norm, "a norm after the last layer");
  visit("tied_embedding", spec.tied_embedding, "the output head is the embedding");
  visit("norm_eps", spec.norm_eps, "epsilon of the layer norms", above(0));
  visit("bos_id", spec.bos_id, "token that begins a sequence", at_least(0));
  visit("eos_id", spec.eos_id, "token that ends a sequence", at_least(0));
  visit("pad_id", spec.pad_id, "token that pads", at_least(0));
  visit("weight_dtype", spec.weight_dtype, "type that matrices are stored in");
}

/// Parses and validates a spec. Throws Error{kInvalidArgument} with every problem.
ModelSpec parse_model_config(std::string_view yaml, const std::string& file_name);
/// The same from a file; Error{kNotFound, kIo} too.
ModelSpec load_model_config(const std::filesystem::path& path);

/// The built-in spec named `name` ("opt-30b", in any case), or nothing.
std::optional<ModelSpec> find_builtin_model(std::string_view name);
/// Their names, the smallest model first.
std::vector<std::string> builtin_model_names();

}  // namespace sluice
