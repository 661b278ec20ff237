// A configurable struct as a tree (for printing) and as a list of fields (for help), by its visit_fields.
// Pure, thread-safe.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/config/fields.h"

namespace sluice {

/// One line of help.
struct ConfigField {
  std::string key;            ///< "placement.weights.cpu_percent"
  std::string type;           ///< "number from 0 to 100", "one of lru, fifo"
  std::string default_value;  ///< as YAML
  std::string help;
};

template <class T>
ConfigNode value_node(T& value);

namespace detail {

class FieldWriter {
 public:
  FieldWriter() { node_.kind = ConfigNode::Kind::kMap; }

  template <class T>
  void operator()(std::string_view name, T& value, std::string_view help, const Bounds& = {}) {
    node_.keys.emplace_back(name);
    node_.children.push_back(value_node(value));
    node_.children.back().comment = help;
  }

  ConfigNode take() { return std::move(node_); }

 private:
  ConfigNode node_;
};

std::string limited(std::string type, const Bounds& bounds);
std::string one_line(const ConfigNode& node);

template <class T>
std::string type_name(const Bounds& bounds) {
  if constexpr (kIsOptional<T>) {
    return type_name<typename T::value_type>(bounds) + ", or null";
  } else if constexpr (kIsVector<T>) {
    return "list of: " + type_name<typename T::value_type>(bounds);
  } else if constexpr (ConfigEnum<T>) {
    std::string names;
    for (const auto& [value, name] : enum_names(T{}))
      names += (names.empty() ? "" : ", ") + std::string(name);
    return "one of " + names;
  } else if constexpr (std::same_as<T, bool>) {
    return "true or false";
  } else if constexpr (std::same_as<T, std::string>) {
    return "text";
  } else if constexpr (ConfigNumber<T>) {
    return limited(std::integral<T> ? "whole number" : "number", bounds);
  } else {
    return "map";
  }
}

class FieldLister {
 public:
  FieldLister(std::string prefix, std::vector<ConfigField>& fields)
      : prefix_(std::move(prefix)), fields_(fields) {}

  template <class T>
  void operator()(std::string_view name, T& value, std::string_view help, const Bounds& bounds = {}) {
    const std::string key = join_key(prefix_, name);
    if constexpr (ConfigStruct<T>) {
      FieldLister nested(key, fields_);
      visit_fields(nested, value);
    } else {
      fields_.push_back({key, type_name<T>(bounds), one_line(value_node(value)), std::string(help)});
    }
  }

 private:
  std::string prefix_;
  std::vector<ConfigField>& fields_;
};

}  // namespace detail

template <class T>
ConfigNode value_node(T& value) {
  if constexpr (detail::kIsOptional<T>) {
    return value ? value_node(*value) : ConfigNode{};
  } else if constexpr (detail::kIsVector<T>) {
    ConfigNode list;
    list.kind = ConfigNode::Kind::kList;
    for (auto&& element : value) {
      typename T::value_type copy = element;  // std::vector<bool> has no references
      list.children.push_back(value_node(copy));
    }
    return list;
  } else if constexpr (ConfigEnum<T>) {
    for (const auto& [known, name] : enum_names(T{})) {
      if (known == value) return scalar_node(std::string(name), ScalarStyle::kPlain);
    }
    return {};
  } else if constexpr (std::same_as<T, bool> || std::same_as<T, std::string> || std::floating_point<T>) {
    return scalar_node(value);
  } else if constexpr (std::unsigned_integral<T>) {
    return scalar_node(static_cast<std::uint64_t>(value));
  } else if constexpr (std::integral<T>) {
    return scalar_node(static_cast<std::int64_t>(value));
  } else {
    detail::FieldWriter writer;
    visit_fields(writer, value);
    return writer.take();
  }
}

}  // namespace sluice
