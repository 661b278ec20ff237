// Configuration values of the basic types: reading them from a node, with a problem where they do not fit,
// and writing them. Pure functions, thread-safe.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include "core/config/node.h"
#include "core/config/problems.h"

namespace sluice {

/// The numbers a field takes.
struct Bounds {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool above_min = false;  ///< min itself is not taken

  bool contains(double x) const { return (above_min ? x > min : x >= min) && x <= max; }
  /// "at least 1", "from 0 to 100", "above 0 and at most 1"; empty without limits.
  std::string describe() const;
};
constexpr Bounds at_least(double min) { return {.min = min}; }
constexpr Bounds above(double min) { return {.min = min, .above_min = true}; }
constexpr Bounds between(double min, double max) { return {.min = min, .max = max}; }

/// Where a value stands: its node, its full key, and the list that takes problems.
struct ConfigSite {
  const ConfigNode& node;
  std::string key;
  ConfigProblems& problems;

  void refuse(std::string_view problem, std::string_view fix) const {
    problems.add(node.line, key, problem, fix);
  }
};

/// Each leaves `value` alone and adds a problem where the node does not hold such a value.
void read_scalar(const ConfigSite& site, bool& value);
void read_scalar(const ConfigSite& site, std::int64_t& value, const Bounds& bounds);
void read_scalar(const ConfigSite& site, std::uint64_t& value, const Bounds& bounds);
void read_scalar(const ConfigSite& site, float& value, const Bounds& bounds);
void read_scalar(const ConfigSite& site, double& value, const Bounds& bounds);
void read_scalar(const ConfigSite& site, std::string& value);

/// "a list", "a map", "empty" or the quoted scalar: how messages call what stands there.
std::string describe(const ConfigNode& node);

ConfigNode scalar_node(bool value);
ConfigNode scalar_node(std::int64_t value);
ConfigNode scalar_node(std::uint64_t value);
ConfigNode scalar_node(float value);  ///< the shortest text that reads back as the same float
ConfigNode scalar_node(double value);
/// Quoted, a text stays a text whatever it says; names need no quotes.
enum class ScalarStyle : std::uint8_t { kPlain, kQuoted };
ConfigNode scalar_node(const std::string& value, ScalarStyle style = ScalarStyle::kQuoted);

}  // namespace sluice
