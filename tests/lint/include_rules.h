// Who may include whom: the rules of the source tree, and a check of one file against them. Pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace sluice::lint {

/// Every breach in a file, as "path:line: #include ...: reason"; empty if there is none. `path` is relative
/// to the repository root, with '/'; `text` is the file's content.
std::vector<std::string> check_includes(std::string_view path, std::string_view text);

}  // namespace sluice::lint
