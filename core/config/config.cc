#include "core/config/config.h"

#include <algorithm>
#include <fstream>
#include <iterator>

#include "core/checkpoint/printable.h"
#include "core/config/yaml.h"
#include "core/error.h"

namespace sluice::detail {
namespace {

/// A command line has no lines to name.
void forget_lines(ConfigNode& node) {
  node.line = 0;
  for (ConfigNode& child : node.children) forget_lines(child);
}

}  // namespace

std::optional<ConfigNode> parse_layer(std::string_view text, const std::string& file_name,
                                      ConfigProblems& problems) {
  problems.set_source(file_name);
  try {
    return parse_yaml(text, file_name);
  } catch (const Error& e) {
    problems.add_message(e.what());
    return std::nullopt;
  }
}

std::optional<ConfigNode> parse_override(const std::string& assignment, ConfigProblems& problems) {
  return parse_override(assignment, "--set " + assignment, problems);
}

std::optional<ConfigNode> parse_override(const std::string& assignment, const std::string& given_as,
                                         ConfigProblems& problems) {
  const std::string source = printable(given_as);
  problems.set_source(source);
  const std::size_t equals = assignment.find('=');
  const std::string_view path = std::string_view(assignment).substr(0, equals);
  const bool has_empty_part =
      path.empty() || path.front() == '.' || path.back() == '.' || path.find("..") != std::string_view::npos;
  if (equals == std::string::npos || has_empty_part) {
    problems.add(0, "", "not an assignment", "write --set key=value, or --set key.inner_key=value");
    return std::nullopt;
  }
  std::optional<ConfigNode> node =
      parse_layer(std::string_view(assignment).substr(equals + 1), source, problems);
  if (!node) return std::nullopt;
  forget_lines(*node);
  // Wraps the value in one map per part of the path, the innermost first.
  for (std::size_t end = path.size(); end != std::string_view::npos;) {
    const std::size_t dot = path.substr(0, end).rfind('.');
    const std::size_t begin = dot == std::string_view::npos ? 0 : dot + 1;
    ConfigNode map;
    map.kind = ConfigNode::Kind::kMap;
    map.keys.emplace_back(path.substr(begin, end - begin));
    map.children.push_back(std::move(*node));
    node = std::move(map);
    end = dot;
  }
  return node;
}

std::string read_config_file(const std::filesystem::path& path) {
  SLUICE_CHECK(std::filesystem::is_regular_file(path), Code::kNotFound,
               fmt::format("no configuration file {}", path.string()), "check the path");
  std::ifstream in(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(in), {}};
  SLUICE_CHECK(in.is_open() && !in.bad(), Code::kIo, fmt::format("cannot read {}", path.string()),
               "check its permissions");
  return text;
}

std::string format_help(const std::vector<ConfigField>& fields) {
  std::size_t width = 0;
  for (const ConfigField& field : fields) width = std::max(width, field.key.size());
  std::string page;
  for (const auto& [key, type, default_value, help] : fields) {
    page += fmt::format("{:<{}}  {} ({}; default {})\n", key, width, help, type, default_value);
  }
  return page;
}

std::string print_tree(const ConfigNode& node) { return to_yaml(node); }

}  // namespace sluice::detail
