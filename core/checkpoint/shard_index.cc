#include "core/checkpoint/shard_index.h"

#include "core/checkpoint/printable.h"
#include "core/checkpoint/strict_json.h"
#include "core/error.h"

namespace sluice {
namespace {

// A name is joined to the checkpoint's folder; anything that could lead out of it is refused.
bool is_plain_file_name(const std::string& name) {
  return !name.empty() && name != "." && name.find("..") == std::string::npos &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
}

}  // namespace

ShardIndex parse_shard_index(std::string_view json, const std::string& file_name) {
  const char* const fix = "download the index again";
  const nlohmann::json root = parse_json_object(json, file_name);
  const auto weight_map = root.find("weight_map");
  SLUICE_CHECK(weight_map != root.end() && weight_map->is_object() && !weight_map->empty(), Code::kCorrupt,
               fmt::format("{}: weight_map is missing, empty or no object", file_name), fix);
  ShardIndex index;
  for (const auto& [tensor, file] : weight_map->items()) {
    SLUICE_CHECK(
        file.is_string(), Code::kCorrupt,
        fmt::format("{}: weight_map: the file of tensor '{}' is no string", file_name, printable(tensor)),
        fix);
    const auto& shard = file.get_ref<const std::string&>();
    SLUICE_CHECK(is_plain_file_name(shard), Code::kCorrupt,
                 fmt::format("{}: weight_map: tensor '{}' names file '{}', which is no plain file name",
                             file_name, printable(tensor), printable(shard)),
                 fix);
    index.files[shard].push_back(tensor);
  }
  return index;
}

}  // namespace sluice
