#include "apps/sweep/sweep_file.h"

#include <algorithm>
#include <filesystem>

#include <fmt/format.h>

#include "apps/sweep/known_flags.h"
#include "core/config/builtin_models.h"
#include "core/config/config.h"
#include "core/config/nearest.h"
#include "core/error.h"

namespace sluice {
namespace {

using apps::FlagSetting;
using apps::KnownFlag;

constexpr std::string_view kLabel = "label";
constexpr std::string_view kPublished = "published_tokens_per_sec";

/// One space between words, so that equal values have equal texts.
std::string words_of(std::string_view text) {
  std::string words;
  for (const char c : text) {
    const bool is_space = c == ' ' || c == '\t';
    if (is_space && (words.empty() || words.back() == ' ')) continue;
    words += is_space ? ' ' : c;
  }
  if (!words.empty() && words.back() == ' ') words.pop_back();
  return words;
}

/// The text of one value: a scalar, or a list of scalars for a flag of several words. Nothing, and a problem,
/// where it is neither.
std::optional<std::string> value_text(const ConfigSite& site, const KnownFlag& flag) {
  const ConfigNode& node = site.node;
  if (node.kind == ConfigNode::Kind::kList && flag.num_values > 1) {
    std::string text;
    for (const ConfigNode& child : node.children) {
      if (child.kind != ConfigNode::Kind::kScalar) {
        site.refuse(describe(child) + " is no value", "write numbers or texts");
        return std::nullopt;
      }
      text += (text.empty() ? "" : " ") + child.scalar;
    }
    return words_of(text);
  }
  if (node.kind != ConfigNode::Kind::kScalar) {
    site.refuse(describe(node) + " is no value", "write a number or a text; axes: take lists");
    return std::nullopt;
  }
  const std::string text = words_of(node.scalar);
  const bool is_switch = flag.kind == KnownFlag::Kind::kSwitch;
  if (is_switch && text != "true" && text != "false" && text != apps::kPlanned) {
    site.refuse(describe(node) + " is no value of a switch", "write true or false");
    return std::nullopt;
  }
  return text;
}

/// Reads a map of flags; `read` turns a child into values. Keys in `others` are not flags.
template <class Read>
void read_settings(const ConfigSite& site, std::vector<FlagSetting>& settings,
                   std::initializer_list<std::string_view> others, const Read& read) {
  if (site.node.kind == ConfigNode::Kind::kNull) return;
  if (site.node.kind != ConfigNode::Kind::kMap) {
    site.refuse(describe(site.node) + " is not a map of flags", "write 'flag: value', one a line");
    return;
  }
  for (std::size_t i = 0; i < site.node.keys.size(); ++i) {
    const std::string& key = site.node.keys[i];
    if (std::find(others.begin(), others.end(), key) != others.end()) continue;
    const ConfigSite child{site.node.children[i], join_key(site.key, key), site.problems};
    const KnownFlag* flag = apps::find_flag(key);
    if (flag == nullptr) {
      child.refuse("no flag of sluice generate or sluice plan", apps::suggest_flag(key));
      continue;
    }
    const bool is_twice = std::any_of(settings.begin(), settings.end(),
                                      [&](const FlagSetting& each) { return each.name == flag->name; });
    if (is_twice) {
      child.refuse(fmt::format("'{}' is stated twice", flag->name), "keep one of them");
      continue;
    }
    FlagSetting setting{.name = flag->name, .values = {}, .line = child.node.line};
    read(child, *flag, setting.values);
    if (!setting.values.empty()) settings.push_back(std::move(setting));
  }
}

void read_one(const ConfigSite& site, const KnownFlag& flag, std::vector<std::string>& values) {
  if (auto text = value_text(site, flag)) values.push_back(std::move(*text));
}

void read_several(const ConfigSite& site, const KnownFlag& flag, std::vector<std::string>& values) {
  if (site.node.kind != ConfigNode::Kind::kList || site.node.children.empty()) {
    site.refuse(describe(site.node) + " is no list of values", "write [a, b]; flags: takes single values");
    return;
  }
  for (const ConfigNode& child : site.node.children) {
    const auto text = value_text(ConfigSite{child, site.key, site.problems}, flag);
    if (!text) continue;
    if (std::find(values.begin(), values.end(), *text) == values.end()) values.push_back(*text);
  }
}

}  // namespace

template <>
void read_value<apps::FixedFlags>(const ConfigSite& site, apps::FixedFlags& flags, const Bounds&) {
  read_settings(site, flags.settings, {}, read_one);
}

template <>
void read_value<apps::SweepAxes>(const ConfigSite& site, apps::SweepAxes& axes, const Bounds&) {
  read_settings(site, axes.settings, {}, read_several);
}

template <>
void read_value<apps::StatedPoint>(const ConfigSite& site, apps::StatedPoint& point, const Bounds&) {
  point.line = site.node.line;
  read_settings(site, point.flags.settings, {kLabel, kPublished}, read_one);
  if (const ConfigNode* label = site.node.find(kLabel))
    read_scalar(ConfigSite{*label, join_key(site.key, kLabel), site.problems}, point.label);
  if (const ConfigNode* published = site.node.find(kPublished)) {
    double value = 1;
    read_scalar(ConfigSite{*published, join_key(site.key, kPublished), site.problems}, value, above(0));
    point.published_tokens_per_sec = value;
  }
}

}  // namespace sluice

namespace sluice::apps {

SweepFile parse_sweep(std::string_view yaml, const std::string& source, const std::string& name) {
  ConfigProblems problems;
  SweepFile sweep;
  sweep.name = name;
  sweep.source = source;
  const std::optional<ConfigNode> tree = sluice::detail::parse_layer(yaml, source, problems);
  if (tree) sluice::detail::read_struct(ConfigSite{*tree, "", problems}, sweep);
  for (const FlagSetting& axis : sweep.axes.settings) {
    for (const FlagSetting& fixed : sweep.flags.settings) {
      if (fixed.name != axis.name) continue;
      problems.add(axis.line, "axes." + axis.name, "stands among the flags, too", "keep one of them");
    }
  }
  problems.throw_if_any();
  if (sweep.title.empty()) sweep.title = name;
  return sweep;
}

SweepFile load_sweep(const std::string& path_or_name) {
  const std::filesystem::path path(path_or_name);
  if (std::filesystem::exists(path) && !std::filesystem::is_directory(path))
    return parse_sweep(sluice::detail::read_config_file(path), path_or_name, path.stem().string());
  std::vector<std::string_view> known;
  for (const sluice::detail::EmbeddedText& file : sluice::detail::builtin_sweep_texts()) {
    if (file.name == path_or_name)
      return parse_sweep(file.text, fmt::format("built-in {}.yaml", file.name), path_or_name);
    known.push_back(file.name);
  }
  throw Error(Code::kNotFound, fmt::format("{}: neither a file nor a sweep that ships", path_or_name),
              suggest_name(path_or_name, known));
}

std::vector<std::string> builtin_sweep_names() {
  std::vector<std::string> names;
  for (const sluice::detail::EmbeddedText& file : sluice::detail::builtin_sweep_texts())
    names.emplace_back(file.name);
  return names;
}

FlagSetting parse_setting(const std::string& assignment) {
  const std::size_t equals = assignment.find('=');
  SLUICE_CHECK(equals != std::string::npos && equals > 0, Code::kInvalidArgument,
               fmt::format("--set {}: is no flag=value", assignment), "for example --set disk-dir=/data");
  const std::string name = assignment.substr(0, equals);
  const KnownFlag* flag = find_flag(name);
  SLUICE_CHECK(flag != nullptr, Code::kInvalidArgument,
               fmt::format("--set {}: no flag of sluice generate or sluice plan", assignment),
               suggest_flag(name));
  const std::string value = assignment.substr(equals + 1);
  SLUICE_CHECK(flag->kind != KnownFlag::Kind::kSwitch || value == "true" || value == "false",
               Code::kInvalidArgument, fmt::format("--set {}: is no value of a switch", assignment),
               "write true or false");
  return {.name = flag->name, .values = {words_of(value)}};
}

}  // namespace sluice::apps
