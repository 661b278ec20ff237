// YAML text to a tree and back; the only door to yaml-cpp. Pure functions, thread-safe.
#pragma once

#include <string>
#include <string_view>

#include "core/config/node.h"

namespace sluice {

/// Reads one YAML document in UTF-8. An empty text is a kNull node. Aliases, tags and several documents in a
/// file are refused: configuration needs none of them, and aliases can grow without bound. Throws
/// Error{kInvalidArgument} as `source:line: problem; fix`.
ConfigNode parse_yaml(std::string_view text, const std::string& source);

/// The tree as a YAML document, with its comments.
std::string to_yaml(const ConfigNode& node);

}  // namespace sluice
