#include "kernels/format/format_rules.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>

#include <fmt/ranges.h>

#include "core/error.h"

namespace sluice::kernels {
namespace {

constexpr std::array<std::string_view, 6> kMatrices = {"q_proj",   "k_proj", "v_proj",
                                                       "out_proj", "fc1",    "fc2"};

/// Calls visit(part) for the parts of "a,b,c".
template <class Visit>
void for_each_part(std::string_view text, Visit visit) {
  while (true) {
    const std::size_t comma = text.find(',');
    visit(text.substr(0, comma));
    if (comma == text.npos) return;
    text.remove_prefix(comma + 1);
  }
}

std::int64_t layer_number(std::string_view text, std::string_view all, const ModelSpec& spec) {
  std::int64_t number = -1;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
  SLUICE_CHECK(problem == std::errc{} && end == text.data() + text.size(), Code::kInvalidArgument,
               fmt::format("layers '{}': '{}' is no layer's number", all, text), "write them as 0-3,95");
  SLUICE_CHECK(number >= 0 && number < spec.num_layers, Code::kInvalidArgument,
               fmt::format("layers '{}': there is no layer {}", all, number),
               fmt::format("{} has layers 0 to {}", spec.name, spec.num_layers - 1));
  return number;
}

bool names_layer(std::string_view layers, std::int64_t layer, const ModelSpec& spec) {
  if (layers.empty()) return true;
  bool found = false;
  for_each_part(layers, [&](std::string_view part) {
    const std::size_t dash = part.find('-');
    const std::int64_t first = layer_number(part.substr(0, dash), layers, spec);
    const std::int64_t last = dash == part.npos ? first : layer_number(part.substr(dash + 1), layers, spec);
    SLUICE_CHECK(first <= last, Code::kInvalidArgument,
                 fmt::format("layers '{}': {} comes after {}", layers, first, last),
                 "write the smaller one first");
    found = found || (first <= layer && layer <= last);
  });
  return found;
}

bool names_matrix(std::string_view tensors, std::string_view matrix) {
  if (tensors.empty()) return true;
  bool found = false;
  for_each_part(tensors, [&](std::string_view part) {
    SLUICE_CHECK(std::ranges::find(kMatrices, part) != kMatrices.end(), Code::kInvalidArgument,
                 fmt::format("tensors '{}': '{}' is no matrix of a decoder layer", tensors, part),
                 fmt::format("write some of {}", fmt::join(kMatrices, ",")));
    found = found || part == matrix;
  });
  return found;
}

/// "fc1" of "decoder.layers.3.fc1.weight".
std::string_view matrix_name(const TensorSpec& tensor) {
  std::string_view name = tensor.name;
  name.remove_suffix(std::string_view(".weight").size());
  return name.substr(name.rfind('.') + 1);
}

}  // namespace

bool prunes(const FormatConfig& config) {
  return config.sparsity > 0 || std::ranges::any_of(config.overrides, [](const FormatOverride& change) {
           return change.sparsity.value_or(0) > 0;
         });
}

void validate(const FormatConfig& config) {
  SLUICE_CHECK(!config.fake || prunes(config), Code::kInvalidArgument,
               "formats: random masks are asked for, but nothing is pruned", "give a sparsity too");
  SLUICE_CHECK(!config.compress || config.format == Encoding::kDense, Code::kInvalidArgument,
               fmt::format("formats: compress is about dense matrices, but they become {}",
                           encoding_name(config.format)),
               "give one of the two");
}

bool can_be_encoded(const TensorSpec& tensor) {
  return !tensor.is_vector && tensor.name.starts_with("decoder.layers.") && tensor.name.ends_with(".weight");
}

MatrixRule rule_for(const FormatConfig& config, const ModelSpec& spec, const TensorSpec& tensor) {
  if (!can_be_encoded(tensor)) return {};
  MatrixRule rule{config.format, {config.sparsity, config.prune_per, {}}};
  if (config.fake) rule.prune.fake_seed = config.fake_seed;
  const std::int64_t layer = tensor.unit - 1;
  for (const FormatOverride& change : config.overrides) {
    const bool layer_matches = names_layer(change.layers, layer, spec);
    const bool matrix_matches = names_matrix(change.tensors, matrix_name(tensor));
    if (!layer_matches || !matrix_matches) continue;
    rule.encoding = change.format.value_or(rule.encoding);
    rule.prune.sparsity = change.sparsity.value_or(rule.prune.sparsity);
    rule.prune.scope = change.prune_per.value_or(rule.prune.scope);
  }
  return rule;
}

}  // namespace sluice::kernels
