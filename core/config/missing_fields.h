// Which fields of a struct a configuration text leaves at their defaults. Pure, thread-safe.
#pragma once

#include <string>
#include <vector>

#include "core/config/write_fields.h"

namespace sluice {

/// A field that a file does not name.
struct MissingField {
  std::string key;            ///< "link.pageable_gb_per_sec"
  std::string default_value;  ///< as YAML, on one line
};

namespace detail {

class MissingFieldLister {
 public:
  MissingFieldLister(const ConfigNode* tree, std::string prefix, std::vector<MissingField>& missing)
      : tree_(tree), prefix_(std::move(prefix)), missing_(missing) {}

  template <class T>
  void operator()(std::string_view name, T& value, std::string_view /*help*/, const Bounds& = {}) {
    const ConfigNode* child = tree_ == nullptr ? nullptr : tree_->find(name);
    const std::string key = join_key(prefix_, name);
    if constexpr (ConfigStruct<T>) {
      MissingFieldLister nested(child, key, missing_);
      visit_fields(nested, value);
    } else if (child == nullptr) {
      missing_.push_back({key, one_line(value_node(value))});
    }
  }

 private:
  const ConfigNode* tree_;  // null: none of its fields is named
  std::string prefix_;
  std::vector<MissingField>& missing_;
};

}  // namespace detail

/// In the order of visit_fields; structs inside are descended into, a list counts as one field. `config`
/// holds the values that stand in for them.
template <ConfigStruct Config>
std::vector<MissingField> missing_fields(const ConfigNode& tree, Config config) {
  std::vector<MissingField> missing;
  detail::MissingFieldLister lister(&tree, "", missing);
  visit_fields(lister, config);
  return missing;
}

}  // namespace sluice
