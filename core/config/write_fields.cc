#include "core/config/write_fields.h"

#include <fmt/format.h>

namespace sluice::detail {

std::string limited(std::string type, const Bounds& bounds) {
  const std::string limits = bounds.describe();
  return limits.empty() ? type : fmt::format("{} {}", type, limits);
}

std::string one_line(const ConfigNode& node) {
  switch (node.kind) {
    case ConfigNode::Kind::kNull:
      return "null";
    case ConfigNode::Kind::kScalar:
      return node.is_text ? fmt::format("\"{}\"", node.scalar) : node.scalar;
    case ConfigNode::Kind::kList:
    case ConfigNode::Kind::kMap:
      break;
  }
  const bool is_map = node.kind == ConfigNode::Kind::kMap;
  std::string text;
  for (std::size_t i = 0; i < node.children.size(); ++i) {
    if (i > 0) text += ", ";
    if (is_map) text += node.keys[i] + ": ";
    text += one_line(node.children[i]);
  }
  return is_map ? fmt::format("{{{}}}", text) : fmt::format("[{}]", text);
}

}  // namespace sluice::detail
