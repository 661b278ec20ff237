// Reads a configuration tree into a struct by its visit_fields. Every value that does not fit and every key
// that no field has becomes a problem; the field keeps its value. Pure, thread-safe.
#pragma once

#include <algorithm>
#include <limits>
#include <string_view>
#include <utility>
#include <vector>

#include "core/config/fields.h"
#include "core/config/nearest.h"

namespace sluice {

template <class T>
void read_value(const ConfigSite& site, T& value, const Bounds& bounds);

namespace detail {

/// The visitor that reads: each field takes the child of its name, and remembers that the name is known.
class FieldReader {
 public:
  explicit FieldReader(const ConfigSite& site) : site_(site) {}

  template <class T>
  void operator()(std::string_view name, T& value, std::string_view /*help*/, const Bounds& bounds = {}) {
    known_.push_back(name);
    if (const ConfigNode* child = site_.node.find(name)) {
      read_value(ConfigSite{*child, join_key(site_.key, name), site_.problems}, value, bounds);
    }
  }

  void refuse_unknown_keys() const {
    for (std::size_t i = 0; i < site_.node.keys.size(); ++i) {
      const std::string& name = site_.node.keys[i];
      if (std::find(known_.begin(), known_.end(), name) != known_.end()) continue;
      site_.problems.add(site_.node.children[i].line, join_key(site_.key, name), "unknown key",
                         suggest_name(name, known_));
    }
  }

 private:
  const ConfigSite& site_;
  std::vector<std::string_view> known_;
};

template <ConfigStruct T>
void read_struct(const ConfigSite& site, T& value) {
  if (site.node.kind == ConfigNode::Kind::kNull) return;  // "key:" with nothing below keeps the defaults
  if (site.node.kind != ConfigNode::Kind::kMap) {
    site.refuse(describe(site.node) + " is not a map of keys", "write its keys below it, indented");
    return;
  }
  FieldReader reader(site);
  visit_fields(reader, value);
  reader.refuse_unknown_keys();
}

template <ConfigEnum T>
void read_enum(const ConfigSite& site, T& value) {
  std::vector<std::string_view> names;
  for (const auto& [known, name] : enum_names(T{})) {
    if (site.node.kind == ConfigNode::Kind::kScalar && site.node.scalar == name) {
      value = known;
      return;
    }
    names.push_back(name);
  }
  site.refuse(describe(site.node) + " is not one of the names", suggest_name(site.node.scalar, names));
}

template <class T>
void read_list(const ConfigSite& site, std::vector<T>& value, const Bounds& bounds) {
  if (site.node.kind != ConfigNode::Kind::kList) {
    site.refuse(describe(site.node) + " is not a list", "write [a, b], or one '- a' a line");
    return;
  }
  std::vector<T> elements;
  for (std::size_t i = 0; i < site.node.children.size(); ++i) {
    const std::string key = site.key + "[" + std::to_string(i) + "]";
    T element{};
    read_value(ConfigSite{site.node.children[i], key, site.problems}, element, bounds);
    elements.push_back(std::move(element));
  }
  value = std::move(elements);
}

/// Integers of any width by way of 64 bits.
template <std::integral T>
void read_integer(const ConfigSite& site, T& value, const Bounds& bounds) {
  using Limits = std::numeric_limits<T>;
  std::conditional_t<std::is_unsigned_v<T>, std::uint64_t, std::int64_t> wide = value;
  read_scalar(site, wide, bounds);
  if (std::in_range<T>(wide)) {
    value = static_cast<T>(wide);
  } else {
    site.refuse(describe(site.node) + " is out of range", "write a whole number from " +
                                                              std::to_string(Limits::min()) + " to " +
                                                              std::to_string(Limits::max()));
  }
}

}  // namespace detail

template <class T>
void read_value(const ConfigSite& site, T& value, const Bounds& bounds) {
  if constexpr (detail::kIsOptional<T>) {
    if (site.node.kind == ConfigNode::Kind::kNull) {
      value.reset();
      return;
    }
    // Starts from what is set, so that an override of one key of an optional struct keeps the others.
    typename T::value_type inner = value.value_or(typename T::value_type{});
    read_value(site, inner, bounds);
    value = std::move(inner);
  } else if constexpr (detail::kIsVector<T>) {
    detail::read_list(site, value, bounds);
  } else if constexpr (ConfigEnum<T>) {
    detail::read_enum(site, value);
  } else if constexpr (std::same_as<T, bool> || std::same_as<T, std::string>) {
    read_scalar(site, value);
  } else if constexpr (std::integral<T>) {
    detail::read_integer(site, value, bounds);
  } else if constexpr (std::floating_point<T>) {
    read_scalar(site, value, bounds);
  } else {
    detail::read_struct(site, value);
  }
}

}  // namespace sluice
