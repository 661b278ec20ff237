#include "core/config/model_config.h"

#include <algorithm>
#include <cctype>

#include "core/config/builtin_models.h"
#include "core/config/config.h"
#include "core/error.h"

namespace sluice {
namespace {

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

}  // namespace

ModelSpec parse_model_config(std::string_view yaml, const std::string& file_name) {
  ModelSpec spec;
  apply_config(spec, yaml, file_name);
  try {
    validate(spec);
  } catch (const Error& e) {
    throw Error(e.code(), fmt::format("{}: {}", file_name, e.what()));
  }
  return spec;
}

ModelSpec load_model_config(const std::filesystem::path& path) {
  return parse_model_config(detail::read_config_file(path), path.string());
}

std::optional<ModelSpec> find_builtin_model(std::string_view name) {
  const std::string wanted = lower(name);
  for (const detail::EmbeddedText& file : detail::builtin_model_texts()) {
    if (file.name == wanted) return parse_model_config(file.text, fmt::format("built-in {}.yaml", file.name));
  }
  return std::nullopt;
}

std::vector<std::string> builtin_model_names() {
  std::vector<std::pair<std::int64_t, std::string>> sized;
  for (const detail::EmbeddedText& file : detail::builtin_model_texts()) {
    sized.emplace_back(num_parameters(find_builtin_model(file.name).value()), file.name);
  }
  std::sort(sized.begin(), sized.end());
  std::vector<std::string> names;
  names.reserve(sized.size());
  for (auto& [size, name] : sized) names.push_back(std::move(name));
  return names;
}

}  // namespace sluice
