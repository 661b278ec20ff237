// JSON of configuration files and indexes, read strictly: a key that appears twice, deep nesting and
// trailing text are errors. Thread-safe.
#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace sluice {

/// Parses `text`, whose root must be an object. Throws Error{kCorrupt} with file, line and column.
nlohmann::json parse_json_object(std::string_view text, const std::string& file_name);

}  // namespace sluice
