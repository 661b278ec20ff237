// `*.safetensors.index.json` and `pytorch_model.bin.index.json`: which file holds which tensor. Thread-safe.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace sluice {

struct ShardIndex {
  /// File name (inside the folder of the index) to the tensors that it holds; both in order of name.
  std::map<std::string, std::vector<std::string>> files;
};

/// Parses and checks the text of an index. Throws Error{kCorrupt} that names the entry.
ShardIndex parse_shard_index(std::string_view json, const std::string& file_name);

}  // namespace sluice
