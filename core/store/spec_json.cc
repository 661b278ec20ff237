#include "core/store/spec_json.h"

#include <array>
#include <cmath>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>

#include "core/dtype.h"

namespace sluice::detail {
namespace {

template <class Enum, std::size_t kSize>
struct Names {
  std::array<std::pair<Enum, std::string_view>, kSize> rows;

  std::string_view name(Enum value) const {
    for (const auto& [known, text] : rows) {
      if (known == value) return text;
    }
    throw Error(Code::kInternal, "a model spec holds a value that the store cannot name",
                "please report this");
  }
  Enum parse(const JsonField& field) const {
    for (const auto& [value, text] : rows) {
      if (text == field.text()) return value;
    }
    field.fail(fmt::format("'{}' is not known", field.text()));
  }
};

constexpr Names<Family, 1> kFamilies{{{{Family::kOpt, "opt"}}}};
constexpr Names<Activation, 3> kActivations{
    {{{Activation::kRelu, "relu"}, {Activation::kGelu, "gelu"}, {Activation::kGeluTanh, "gelu_tanh"}}}};

// Bounds far above any model, low enough that rows * cols * 8 bytes and the sum over all tensors fit in 63
// bits.
constexpr std::int64_t kMaxLayers = 1 << 12;
constexpr std::int64_t kMaxDim = 1 << 24;
constexpr std::int64_t kMaxHeads = 1 << 14;

}  // namespace

nlohmann::ordered_json spec_to_json(const ModelSpec& spec) {
  // Naming every member makes a new one a compile error here: it must be stored too, and kStoreFormatVersion
  // raised.
  const auto& [family, name, num_layers, hidden_dim, ffn_dim, num_heads, num_kv_heads, head_dim, vocab_size,
               embed_dim, max_positions, position_offset, activation, has_bias, norm_affine, pre_norm,
               final_norm, tied_embedding, norm_eps, bos_id, eos_id, pad_id, weight_dtype] = spec;
  return {{"family", kFamilies.name(family)},
          {"name", name},
          {"num_layers", num_layers},
          {"hidden_dim", hidden_dim},
          {"ffn_dim", ffn_dim},
          {"num_heads", num_heads},
          {"num_kv_heads", num_kv_heads},
          {"head_dim", head_dim},
          {"vocab_size", vocab_size},
          {"embed_dim", embed_dim},
          {"max_positions", max_positions},
          {"position_offset", position_offset},
          {"activation", kActivations.name(activation)},
          {"has_bias", has_bias},
          {"norm_affine", norm_affine},
          {"pre_norm", pre_norm},
          {"final_norm", final_norm},
          {"tied_embedding", tied_embedding},
          {"norm_eps", norm_eps},
          {"bos_id", bos_id},
          {"eos_id", eos_id},
          {"pad_id", pad_id},
          {"weight_dtype", dtype_name(weight_dtype)}};
}

ModelSpec spec_from_json(const JsonField& field) {
  field.allow_only({"family",          "name",          "num_layers",     "hidden_dim",  "ffn_dim",
                    "num_heads",       "num_kv_heads",  "head_dim",       "vocab_size",  "embed_dim",
                    "activation",      "max_positions", "has_bias",       "norm_affine", "pre_norm",
                    "position_offset", "final_norm",    "tied_embedding", "norm_eps",    "bos_id",
                    "eos_id",          "pad_id",        "weight_dtype"});
  const auto id = [&](const char* key) {
    return static_cast<std::int32_t>(field.at(key).integer(-1, std::numeric_limits<std::int32_t>::max()));
  };
  ModelSpec spec;
  spec.family = kFamilies.parse(field.at("family"));
  spec.name = field.at("name").text();
  spec.num_layers = field.at("num_layers").integer(1, kMaxLayers);
  spec.hidden_dim = field.at("hidden_dim").integer(1, kMaxDim);
  spec.ffn_dim = field.at("ffn_dim").integer(1, kMaxDim);
  spec.num_heads = field.at("num_heads").integer(1, kMaxHeads);
  spec.num_kv_heads = field.at("num_kv_heads").integer(1, kMaxHeads);
  spec.head_dim = field.at("head_dim").integer(1, kMaxDim / kMaxHeads);
  spec.vocab_size = field.at("vocab_size").integer(1, kMaxDim);
  spec.embed_dim = field.at("embed_dim").integer(1, kMaxDim);
  spec.max_positions = field.at("max_positions").integer(1, kMaxDim);
  spec.position_offset = field.at("position_offset").integer(0, kMaxDim);
  spec.activation = kActivations.parse(field.at("activation"));
  spec.has_bias = field.at("has_bias").boolean();
  spec.norm_affine = field.at("norm_affine").boolean();
  spec.pre_norm = field.at("pre_norm").boolean();
  spec.final_norm = field.at("final_norm").boolean();
  spec.tied_embedding = field.at("tied_embedding").boolean();
  spec.norm_eps = static_cast<float>(field.at("norm_eps").number());
  field.at("norm_eps")
      .require(std::isfinite(spec.norm_eps) && spec.norm_eps >= 0, "is not a small positive number");
  spec.bos_id = id("bos_id");
  spec.eos_id = id("eos_id");
  spec.pad_id = id("pad_id");
  const std::optional<DType> dtype = parse_dtype(field.at("weight_dtype").text());
  field.at("weight_dtype")
      .require(dtype.has_value(), fmt::format("'{}' is not known", field.at("weight_dtype").text()));
  spec.weight_dtype = *dtype;
  try {
    validate(spec);
  } catch (const Error& contradiction) {
    field.fail(contradiction.what());
  }
  return spec;
}

}  // namespace sluice::detail
