// A configuration text as a tree with line numbers, between YAML (yaml.h) and structs (config.h). Plain data.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sluice {

struct ConfigNode {
  enum class Kind : std::uint8_t { kNull, kScalar, kList, kMap };

  Kind kind = Kind::kNull;
  int line = 0;                   ///< 1-based; 0 where there is no file
  std::string scalar;             ///< of kScalar
  bool is_text = false;           ///< the scalar stands in quotes, so it is no number, flag or null
  std::vector<std::string> keys;  ///< of kMap: keys[i] names children[i]; each once
  std::vector<ConfigNode> children;
  std::string comment;  ///< for people, when written

  /// The child named `key`, or null.
  const ConfigNode* find(std::string_view key) const {
    for (std::size_t i = 0; i < keys.size(); ++i) {
      if (keys[i] == key) return &children[i];
    }
    return nullptr;
  }
};

}  // namespace sluice
