// Reads a Python pickle as inert data. Nothing in it is ever executed or looked up: the result is a tree of
// plain nodes, and whatever is not on the caller's white list becomes an opaque node. Thread-safe.
// The opcodes that are read: CHECKPOINTS.md, "Pickle".
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/checkpoint/byte_source.h"

namespace sluice {

enum class PickleKind : std::uint8_t {
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kBytes,
  kTuple,
  kList,
  kDict,        ///< also collections.OrderedDict
  kGlobal,      ///< a name of the white list
  kCall,        ///< a name of the white list applied to arguments
  kPersistent,  ///< what the writer stored elsewhere, by its id
  kOpaque,      ///< anything else; its contents are dropped
};

using PickleRef = std::uint32_t;  ///< index into PickleTree::nodes

struct PickleNode {
  PickleKind kind = PickleKind::kNone;
  std::int64_t integer = 0;  ///< kBool, kInt
  std::string text;          ///< kString, kBytes; kGlobal: "module name"
  /// kTuple, kList: the items. kDict: key, value, key, value, ... kCall: callee, arguments. kPersistent: id.
  std::vector<PickleRef> items;
};

/// Nodes refer to each other by index, may be shared and may form cycles.
struct PickleTree {
  std::deque<PickleNode> nodes;
  PickleRef root = 0;
  const PickleNode& operator[](PickleRef ref) const { return nodes[ref]; }
};

/// Parses the `bytes` bytes of `source` from `offset`. `known_globals` are spelled "module name". Throws
/// Error{kCorrupt} with file and offset for an unknown opcode, a wrong stack or a text that ends early, and
/// where a limit is passed: 64 MiB of pickle, 2 million nodes, 1 MiB a string.
PickleTree parse_pickle(ByteSource& source, std::int64_t offset, std::int64_t bytes,
                        std::span<const std::string_view> known_globals);

}  // namespace sluice
