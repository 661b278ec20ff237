// Configuration from YAML files and `--set a.b=c` overrides, for any struct with visit_fields (fields.h).
// All problems are reported together, as `path:line: key: problem; fix`. Pure but for load_config,
// thread-safe.
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/config/read_fields.h"
#include "core/config/write_fields.h"

namespace sluice {

namespace detail {

/// The YAML text as a tree; problems from here on are called after `file_name`. Nothing, and a problem, where
/// the syntax is wrong.
std::optional<ConfigNode> parse_layer(std::string_view text, const std::string& file_name,
                                      ConfigProblems& problems);
/// "a.b=c" as the tree {a: {b: c}}, c read as YAML. Problems are called after `source`.
std::optional<ConfigNode> parse_override(const std::string& assignment, const std::string& source,
                                         ConfigProblems& problems);
/// The same, given by --set.
std::optional<ConfigNode> parse_override(const std::string& assignment, ConfigProblems& problems);
std::string read_config_file(const std::filesystem::path& path);
std::string format_help(const std::vector<ConfigField>& fields);
std::string print_tree(const ConfigNode& node);

}  // namespace detail

/// Sets in `config` what `text` names, then what the overrides ("a.b=c") name; the rest keeps its value.
/// `file_name` is for messages. On any problem throws Error{kInvalidArgument} with all of them, a line each,
/// and leaves `config` as it was.
template <ConfigStruct Config>
void apply_config(Config& config, std::string_view text, const std::string& file_name,
                  std::span<const std::string> overrides = {}) {
  ConfigProblems problems;
  Config changed = config;
  const auto read = [&](const std::optional<ConfigNode>& node) {
    if (node) detail::read_struct(ConfigSite{*node, "", problems}, changed);
  };
  read(detail::parse_layer(text, file_name, problems));
  for (const std::string& assignment : overrides) read(detail::parse_override(assignment, problems));
  problems.throw_if_any();
  config = std::move(changed);
}

/// Overrides alone.
template <ConfigStruct Config>
void apply_overrides(Config& config, std::span<const std::string> overrides) {
  apply_config(config, "", "", overrides);
}

/// One field, by a flag of its own: problems are called after it, "--format bitmpa".
template <ConfigStruct Config>
void apply_flag(Config& config, const std::string& flag, const std::string& key, const std::string& value) {
  ConfigProblems problems;
  Config changed = config;
  const auto node = detail::parse_override(key + "=" + value, flag + " " + value, problems);
  if (node) detail::read_struct(ConfigSite{*node, "", problems}, changed);
  problems.throw_if_any();
  config = std::move(changed);
}

/// The defaults of `Config`, changed by the file and the overrides. Throws Error{kNotFound, kIo} too.
template <ConfigStruct Config>
Config load_config(const std::filesystem::path& path, std::span<const std::string> overrides = {}) {
  Config config;
  apply_config(config, detail::read_config_file(path), path.string(), overrides);
  return config;
}

/// The YAML that apply_config reads back to an equal struct, each field with its help as a comment.
template <ConfigStruct Config>
std::string print_config(Config config) {
  return detail::print_tree(value_node(config));
}

/// Every field that has a value of its own, sub-structs flattened to dotted keys; defaults from `config`.
template <ConfigStruct Config>
std::vector<ConfigField> config_fields(Config config = {}) {
  std::vector<ConfigField> fields;
  detail::FieldLister lister("", fields);
  visit_fields(lister, config);
  return fields;
}

/// The fields as a page for --help.
template <ConfigStruct Config>
std::string config_help(const Config& config = {}) {
  return detail::format_help(config_fields(config));
}

}  // namespace sluice
