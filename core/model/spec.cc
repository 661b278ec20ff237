#include "core/model/spec.h"

#include "core/error.h"

namespace sluice {

void validate(const ModelSpec& spec) {
  std::string problems;
  const auto require = [&](bool ok, const std::string& problem) {
    if (!ok) problems += (problems.empty() ? "" : "; ") + problem;
  };
  const auto positive = [&](std::int64_t value, const char* key) {
    require(value > 0, fmt::format("{} is {}, must be positive", key, value));
  };
  positive(spec.num_layers, "num_layers");
  positive(spec.hidden_dim, "hidden_dim");
  positive(spec.ffn_dim, "ffn_dim");
  positive(spec.num_heads, "num_heads");
  positive(spec.num_kv_heads, "num_kv_heads");
  positive(spec.head_dim, "head_dim");
  positive(spec.vocab_size, "vocab_size");
  positive(spec.embed_dim, "embed_dim");
  positive(spec.max_positions, "max_positions");
  require(spec.position_offset >= 0, fmt::format("position_offset is {}", spec.position_offset));
  if (spec.num_heads > 0 && spec.num_kv_heads > 0) {
    require(
        spec.num_heads % spec.num_kv_heads == 0,
        fmt::format("num_heads {} is not a multiple of num_kv_heads {}", spec.num_heads, spec.num_kv_heads));
  }
  require(spec.head_dim % 8 == 0 && spec.head_dim <= 256,
          fmt::format("head_dim {} is not a multiple of 8 up to 256", spec.head_dim));
  require(spec.weight_dtype == DType::kF16 || spec.weight_dtype == DType::kBF16,
          fmt::format("weight_dtype {} is neither f16 nor bf16", dtype_name(spec.weight_dtype)));
  SLUICE_CHECK(problems.empty(), Code::kInvalidArgument, fmt::format("model '{}': {}", spec.name, problems),
               "check the checkpoint's config.json, or give another one with --config");
}

namespace {

class TensorList {
 public:
  void matrix(std::int64_t unit, std::string name, std::int64_t rows, std::int64_t cols, SplitRule split) {
    tensors_.push_back({std::move(name), unit, rows, cols, false, split});
  }
  void vector(std::int64_t unit, std::string name, std::int64_t size, SplitRule split) {
    tensors_.push_back({std::move(name), unit, 1, size, true, split});
  }
  void norm(const ModelSpec& spec, std::int64_t unit, const std::string& name) {
    if (!spec.norm_affine) return;
    vector(unit, name + ".weight", spec.hidden_dim, SplitRule::kReplicated);
    vector(unit, name + ".bias", spec.hidden_dim, SplitRule::kReplicated);
  }
  /// `split` of the weight; the bias follows rows and heads, and is replicated when columns are split.
  void linear(const ModelSpec& spec, std::int64_t unit, const std::string& name, std::int64_t rows,
              std::int64_t cols, SplitRule split) {
    matrix(unit, name + ".weight", rows, cols, split);
    if (spec.has_bias) {
      vector(unit, name + ".bias", rows, split == SplitRule::kCols ? SplitRule::kReplicated : split);
    }
  }
  std::vector<TensorSpec> take() { return std::move(tensors_); }

 private:
  std::vector<TensorSpec> tensors_;
};

}  // namespace

std::vector<TensorSpec> model_tensors(const ModelSpec& spec) {
  TensorList list;
  const std::int64_t q_dim = spec.num_heads * spec.head_dim;
  const std::int64_t kv_dim = spec.num_kv_heads * spec.head_dim;
  const bool projected = spec.embed_dim != spec.hidden_dim;
  const std::int64_t last = output_unit(spec);

  if (!spec.tied_embedding) {
    list.matrix(0, "decoder.embed_tokens.weight", spec.vocab_size, spec.embed_dim, SplitRule::kRows);
  }
  list.matrix(0, "decoder.embed_positions.weight", spec.max_positions + spec.position_offset, spec.hidden_dim,
              SplitRule::kReplicated);
  if (projected) {
    list.matrix(0, "decoder.project_in.weight", spec.hidden_dim, spec.embed_dim, SplitRule::kReplicated);
  }
  for (std::int64_t i = 0; i < spec.num_layers; ++i) {
    const std::int64_t unit = i + 1;
    const std::string layer = fmt::format("decoder.layers.{}.", i);
    list.norm(spec, unit, layer + "self_attn_layer_norm");
    list.linear(spec, unit, layer + "self_attn.q_proj", q_dim, spec.hidden_dim, SplitRule::kHeads);
    list.linear(spec, unit, layer + "self_attn.k_proj", kv_dim, spec.hidden_dim, SplitRule::kHeads);
    list.linear(spec, unit, layer + "self_attn.v_proj", kv_dim, spec.hidden_dim, SplitRule::kHeads);
    list.linear(spec, unit, layer + "self_attn.out_proj", spec.hidden_dim, q_dim, SplitRule::kCols);
    list.norm(spec, unit, layer + "final_layer_norm");
    list.linear(spec, unit, layer + "fc1", spec.ffn_dim, spec.hidden_dim, SplitRule::kRows);
    list.linear(spec, unit, layer + "fc2", spec.hidden_dim, spec.ffn_dim, SplitRule::kCols);
  }
  if (spec.final_norm) list.norm(spec, last, "decoder.final_layer_norm");
  if (projected) {
    list.matrix(last, "decoder.project_out.weight", spec.embed_dim, spec.hidden_dim, SplitRule::kReplicated);
  }
  list.matrix(last, spec.tied_embedding ? "decoder.embed_tokens.weight" : "lm_head.weight", spec.vocab_size,
              spec.embed_dim, SplitRule::kRows);
  return list.take();
}

std::int64_t num_parameters(const ModelSpec& spec) {
  std::int64_t total = 0;
  for (const TensorSpec& tensor : model_tensors(spec)) total += tensor.rows * tensor.cols;
  return total;
}

}  // namespace sluice
