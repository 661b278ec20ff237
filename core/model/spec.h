// What a model is, as numbers and flags, read from a checkpoint's config.json and never from a table of
// names. Plain data; thread-safe when const.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/dtype.h"

namespace sluice {

enum class Family : std::uint8_t { kOpt };
enum class Activation : std::uint8_t { kRelu, kGelu, kGeluTanh };

struct ModelSpec {
  Family family = Family::kOpt;
  std::string name;  ///< for people; "opt-30b" or the folder's name
  std::int64_t num_layers = 0;
  std::int64_t hidden_dim = 0;
  std::int64_t ffn_dim = 0;
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;  ///< equal to num_heads unless queries share KV heads
  std::int64_t head_dim = 0;
  std::int64_t vocab_size = 0;     ///< rows of the embedding, padding rows included
  std::int64_t embed_dim = 0;      ///< word_embed_proj_dim; project_in and project_out exist if != hidden_dim
  std::int64_t max_positions = 0;  ///< context length in tokens
  std::int64_t position_offset = 2;  ///< row of the position table that position 0 uses
  Activation activation = Activation::kRelu;
  bool has_bias = true;        ///< linear layers have biases
  bool norm_affine = true;     ///< layer norms have weight and bias
  bool pre_norm = true;        ///< do_layer_norm_before; false is post-LN
  bool final_norm = true;      ///< a norm after the last layer
  bool tied_embedding = true;  ///< the output head is embed_tokens
  float norm_eps = 1e-5F;
  std::int32_t bos_id = 2;
  std::int32_t eos_id = 2;
  std::int32_t pad_id = 1;
  DType weight_dtype = DType::kF16;  ///< kF16 or kBF16: what matrices are stored as

  friend bool operator==(const ModelSpec&, const ModelSpec&) = default;
};

/// Throws Error{kInvalidArgument} with every contradiction in the spec (zero sizes, heads that do not
/// divide).
void validate(const ModelSpec& spec);

/// How a tensor is divided over several GPUs.
enum class SplitRule : std::uint8_t { kReplicated, kRows, kCols, kHeads };

/// One weight tensor as the engine knows it.
struct TensorSpec {
  std::string name;       ///< canonical name without "model.", e.g. "decoder.layers.3.fc1.weight"
  std::int64_t unit = 0;  ///< which streaming unit reads it: see num_units
  std::int64_t rows = 0;  ///< 1 for vectors
  std::int64_t cols = 0;
  bool is_vector = false;
  SplitRule split = SplitRule::kReplicated;

  friend bool operator==(const TensorSpec&, const TensorSpec&) = default;
};

/// Streaming units in pass order: 0 is the input (position table, project_in; embed_tokens if untied),
/// 1..num_layers are decoder layers, num_layers + 1 is the output (final norm, project_out, and the
/// vocabulary matrix: embed_tokens if tied, which the input of the next pass reads too).
inline std::int64_t num_units(const ModelSpec& spec) { return spec.num_layers + 2; }
inline std::int64_t output_unit(const ModelSpec& spec) { return spec.num_layers + 1; }

/// Every tensor of the model in the order in which a pass needs them. Also the order inside a store.
std::vector<TensorSpec> model_tensors(const ModelSpec& spec);

/// Number of parameters, a tied embedding counted once.
std::int64_t num_parameters(const ModelSpec& spec);

}  // namespace sluice
