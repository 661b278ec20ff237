#include "core/model/hf_config.h"

#include <array>
#include <limits>
#include <optional>

#include <nlohmann/json.hpp>

#include "core/checkpoint/byte_source.h"
#include "core/checkpoint/printable.h"
#include "core/checkpoint/strict_json.h"
#include "core/error.h"
#include "core/units.h"

namespace sluice {
namespace {

constexpr std::int64_t kMaxConfigBytes = 1_MiB;
// Far above every published model; keeps products of sizes inside 63 bits and tensor lists small.
constexpr std::int64_t kMaxLayers = 10'000;
constexpr std::int64_t kMaxDim = std::int64_t{1} << 24;
constexpr std::int64_t kMaxTokenId = std::numeric_limits<std::int32_t>::max();

constexpr std::array kKnownModelTypes = {std::string_view("opt")};

std::string known_model_types() {
  std::string list;
  for (const std::string_view type : kKnownModelTypes)
    list += fmt::format("{}'{}'", list.empty() ? "" : ", ", type);
  return list;
}

/// Typed access to the keys of one config; collects every problem and reports them together.
class ConfigKeys {
 public:
  ConfigKeys(std::string_view json, const std::string& file_name)
      : root_(parse_json_object(json, file_name)), file_name_(file_name) {}

  bool is_absent(const char* key) const {
    const auto found = root_.find(key);
    return found == root_.end() || found->is_null();
  }
  bool boolean(const char* key, bool missing) {
    if (is_absent(key)) return missing;
    if (root_[key].is_boolean()) return root_[key].get<bool>();
    wrong(key, "must be true or false");
    return missing;
  }
  std::int64_t integer(const char* key, std::int64_t missing, std::int64_t low, std::int64_t high) {
    if (is_absent(key)) return missing;
    const nlohmann::json& value = root_[key];
    // Unsigned values above 2^63 would turn negative; they are out of range either way.
    const bool fits =
        value.is_number_integer() &&
        !(value.is_number_unsigned() && value.get<std::uint64_t>() > static_cast<std::uint64_t>(high));
    if (fits && value.get<std::int64_t>() >= low) return value.get<std::int64_t>();
    wrong(key, fmt::format("must be an integer from {} to {}", low, high));
    return missing;
  }
  std::int64_t size(const char* key, std::int64_t missing) { return integer(key, missing, 1, kMaxDim); }
  std::int32_t token_id(const char* key, std::int32_t missing) {
    return static_cast<std::int32_t>(integer(key, missing, 0, kMaxTokenId));
  }
  std::string text(const char* key, const std::string& missing) {
    if (is_absent(key)) return missing;
    if (root_[key].is_string()) return root_[key].get<std::string>();
    wrong(key, "must be a string");
    return missing;
  }
  void wrong(const char* key, const std::string& rule) {
    constexpr std::size_t kShown = 60;
    std::string value = "absent";
    if (!is_absent(key)) value = root_[key].dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
    if (value.size() > kShown) value = value.substr(0, kShown) + "...";
    problems_ += fmt::format("{}{} is {}, {}", problems_.empty() ? "" : "; ", key, value, rule);
  }
  void throw_problems() const {
    SLUICE_CHECK(problems_.empty(), Code::kInvalidArgument, fmt::format("{}: {}", file_name_, problems_),
                 "correct the file, or give another one with --config");
  }
  const std::string& file_name() const { return file_name_; }

 private:
  nlohmann::json root_;
  std::string file_name_;
  std::string problems_;
};

Activation activation_of(const std::string& name, const std::string& file_name) {
  if (name == "relu") return Activation::kRelu;
  if (name == "gelu") return Activation::kGelu;
  if (name == "gelu_new" || name == "gelu_fast" || name == "gelu_pytorch_tanh") return Activation::kGeluTanh;
  throw Error(Code::kUnsupported, fmt::format("{}: activation_function is '{}'", file_name, printable(name)),
              "known are relu, gelu, gelu_new, gelu_fast and gelu_pytorch_tanh");
}

// Defaults are those of transformers' OPTConfig, the 125m model.
ModelSpec parse_opt(ConfigKeys& keys) {
  ModelSpec spec;
  spec.family = Family::kOpt;
  spec.num_layers = keys.integer("num_hidden_layers", 12, 1, kMaxLayers);
  spec.hidden_dim = keys.size("hidden_size", 768);
  spec.ffn_dim = keys.size("ffn_dim", 3072);
  spec.num_heads = keys.size("num_attention_heads", 12);
  spec.num_kv_heads = spec.num_heads;
  spec.vocab_size = keys.size("vocab_size", 50272);
  spec.embed_dim = keys.size("word_embed_proj_dim", spec.hidden_dim);
  spec.max_positions = keys.size("max_position_embeddings", 2048);
  spec.position_offset = 2;
  spec.has_bias = keys.boolean("enable_bias", true);
  spec.norm_affine = keys.boolean("layer_norm_elementwise_affine", true);
  spec.pre_norm = keys.boolean("do_layer_norm_before", true);
  spec.final_norm = spec.pre_norm && !keys.boolean("_remove_final_layer_norm", false);
  spec.tied_embedding = keys.boolean("tie_word_embeddings", true);
  spec.norm_eps = 1e-5F;
  spec.bos_id = keys.token_id("bos_token_id", 2);
  spec.eos_id = keys.token_id("eos_token_id", 2);
  spec.pad_id = keys.token_id("pad_token_id", 1);
  const std::string activation = keys.text("activation_function", "relu");
  if (spec.hidden_dim % spec.num_heads != 0) {
    keys.wrong("hidden_size", fmt::format("{} is not a multiple of num_attention_heads, {}", spec.hidden_dim,
                                          spec.num_heads));
  }
  keys.throw_problems();
  spec.activation = activation_of(activation, keys.file_name());
  spec.head_dim = spec.hidden_dim / spec.num_heads;
  return spec;
}

bool ends_with_any(std::string_view name, std::initializer_list<std::string_view> endings) {
  for (const std::string_view ending : endings) {
    if (name.ends_with(ending)) return true;
  }
  return false;
}

}  // namespace

ModelSpec parse_hf_config(std::string_view json, const std::string& file_name) {
  ConfigKeys keys(json, file_name);
  const std::string model_type = keys.text("model_type", "");
  std::string name = keys.text("_name_or_path", "");
  keys.throw_problems();
  SLUICE_CHECK(!model_type.empty(), Code::kInvalidArgument,
               fmt::format("{}: model_type is missing", file_name),
               fmt::format("add it; known are {}", known_model_types()));
  SLUICE_CHECK(model_type == kKnownModelTypes[0], Code::kUnsupported,
               fmt::format("{}: model_type is '{}'", file_name, printable(model_type)),
               fmt::format("known are {}", known_model_types()));
  SLUICE_CHECK(keys.is_absent("quantization_config"), Code::kUnsupported,
               fmt::format("{}: quantization_config is set: the weights are quantised", file_name),
               "use the checkpoint with fp16, bf16 or fp32 weights");
  ModelSpec spec = parse_opt(keys);
  while (name.ends_with('/')) name.pop_back();
  spec.name = name.substr(name.rfind('/') + 1);
  if (spec.name.empty()) spec.name = std::filesystem::path(file_name).parent_path().filename().string();
  if (spec.name.empty()) spec.name = model_type;
  try {
    validate(spec);
  } catch (const Error& e) {
    throw Error(e.code(), fmt::format("{}: {}", file_name, what_without_fix(e)), e.fix());
  }
  return spec;
}

ModelSpec read_hf_config(const std::filesystem::path& config_json) {
  SLUICE_CHECK(std::filesystem::exists(config_json), Code::kNotFound,
               fmt::format("{}: no model configuration", config_json.string()),
               "put the model's config.json there, or give one with --config");
  FileSource source(std::filesystem::absolute(config_json));
  SLUICE_CHECK(source.size() <= kMaxConfigBytes, Code::kCorrupt,
               fmt::format("{}: {} bytes, the limit for a config.json is {}", source.name(), source.size(),
                           kMaxConfigBytes),
               "give the model's config.json with --config");
  return parse_hf_config(source.read_text(0, source.size()), source.name());
}

std::string canonical_tensor_name(const ModelSpec& spec, std::string_view checkpoint_name) {
  std::string_view name = checkpoint_name;
  if (name.starts_with("model.")) name.remove_prefix(6);
  // Buffers of old transformers and metaseq versions, not weights.
  if (ends_with_any(name, {"position_ids", "._float_tensor"}) || name == "decoder.version") return "";
  if (name == "lm_head.weight" && spec.tied_embedding) return "";
  constexpr std::string_view kOldNorm = "decoder.layer_norm.";
  if (name.starts_with(kOldNorm))
    return fmt::format("decoder.final_layer_norm.{}", name.substr(kOldNorm.size()));
  return std::string(name);
}

}  // namespace sluice
