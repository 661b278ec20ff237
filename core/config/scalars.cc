#include "core/config/scalars.h"

#include <charconv>
#include <cmath>

#include "core/checkpoint/printable.h"

namespace sluice {
namespace {

/// The whole scalar as a number; false if it is quoted, or anything but a number that fits.
template <class Number>
bool parse_number(const ConfigNode& node, Number& number) {
  if (node.kind != ConfigNode::Kind::kScalar || node.is_text) return false;
  const char* begin = node.scalar.data();
  const char* end = begin + node.scalar.size();
  if (node.scalar.size() > 1 && *begin == '+' && begin[1] != '-') ++begin;
  const auto [rest, ec] = std::from_chars(begin, end, number);
  return ec == std::errc{} && rest == end;
}

std::string with_bounds(std::string_view what, const Bounds& bounds) {
  const std::string limits = bounds.describe();
  return limits.empty() ? fmt::format("write {}", what) : fmt::format("write {} {}", what, limits);
}

template <class Number>
void read_number(const ConfigSite& site, Number& value, const Bounds& bounds, std::string_view what) {
  Number number{};
  if (!parse_number(site.node, number) || !std::isfinite(static_cast<double>(number))) {
    site.refuse(fmt::format("{} is not {}", describe(site.node), what), with_bounds(what, bounds));
  } else if (!bounds.contains(static_cast<double>(number))) {
    site.refuse(fmt::format("{} is out of range", describe(site.node)), with_bounds(what, bounds));
  } else {
    value = number;
  }
}

ConfigNode plain(std::string text) {
  ConfigNode node;
  node.kind = ConfigNode::Kind::kScalar;
  node.scalar = std::move(text);
  return node;
}

}  // namespace

std::string Bounds::describe() const {
  const bool has_min = min > -std::numeric_limits<double>::infinity();
  const bool has_max = max < std::numeric_limits<double>::infinity();
  if (has_min && has_max) {
    return above_min ? fmt::format("above {} and at most {}", min, max)
                     : fmt::format("from {} to {}", min, max);
  }
  if (has_min) return fmt::format("{} {}", above_min ? "above" : "of at least", min);
  return has_max ? fmt::format("of at most {}", max) : std::string();
}

std::string describe(const ConfigNode& node) {
  switch (node.kind) {
    case ConfigNode::Kind::kNull:
      return "nothing";
    case ConfigNode::Kind::kScalar:
      return fmt::format("'{}'", printable(node.scalar));
    case ConfigNode::Kind::kList:
      return "a list";
    case ConfigNode::Kind::kMap:
      return "a map";
  }
  return "?";
}

void read_scalar(const ConfigSite& site, bool& value) {
  const bool is_plain = site.node.kind == ConfigNode::Kind::kScalar && !site.node.is_text;
  if (is_plain && site.node.scalar == "true") {
    value = true;
  } else if (is_plain && site.node.scalar == "false") {
    value = false;
  } else {
    site.refuse(fmt::format("{} is not a flag", describe(site.node)), "write true or false");
  }
}

void read_scalar(const ConfigSite& site, std::int64_t& value, const Bounds& bounds) {
  read_number(site, value, bounds, "a whole number");
}

void read_scalar(const ConfigSite& site, std::uint64_t& value, const Bounds& bounds) {
  read_number(site, value, bounds, "a whole number");
}

void read_scalar(const ConfigSite& site, float& value, const Bounds& bounds) {
  read_number(site, value, bounds, "a number");
}

void read_scalar(const ConfigSite& site, double& value, const Bounds& bounds) {
  read_number(site, value, bounds, "a number");
}

void read_scalar(const ConfigSite& site, std::string& value) {
  if (site.node.kind != ConfigNode::Kind::kScalar) {
    site.refuse(fmt::format("{} is not a text", describe(site.node)),
                "write one text; \"\" is the empty one");
    return;
  }
  value = site.node.scalar;
}

ConfigNode scalar_node(bool value) { return plain(value ? "true" : "false"); }
ConfigNode scalar_node(std::int64_t value) { return plain(fmt::format("{}", value)); }
ConfigNode scalar_node(std::uint64_t value) { return plain(fmt::format("{}", value)); }
ConfigNode scalar_node(float value) { return plain(fmt::format("{}", value)); }
ConfigNode scalar_node(double value) { return plain(fmt::format("{}", value)); }
ConfigNode scalar_node(const std::string& value, ScalarStyle style) {
  ConfigNode node = plain(value);
  node.is_text = style == ScalarStyle::kQuoted;
  return node;
}

}  // namespace sluice
