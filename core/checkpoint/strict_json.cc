#include "core/checkpoint/strict_json.h"

#include <set>
#include <vector>

#include "core/checkpoint/printable.h"
#include "core/error.h"

namespace sluice {
namespace {

constexpr int kMaxDepth = 32;

// "[json.exception.parse_error.101] parse error at line 1, column 2: ..." without its bracket.
std::string_view without_prefix(std::string_view message) {
  const std::size_t end = message.find("] ");
  return end == std::string_view::npos ? message : message.substr(end + 2);
}

}  // namespace

nlohmann::json parse_json_object(std::string_view text, const std::string& file_name) {
  using nlohmann::json;
  const char* const fix = "repair the file or download it again";
  std::vector<std::set<std::string>> keys_of_open_objects;
  const auto check = [&](int depth, json::parse_event_t event, json& parsed) {
    SLUICE_CHECK(depth <= kMaxDepth, Code::kCorrupt,
                 fmt::format("{}: nested deeper than {} levels", file_name, kMaxDepth), fix);
    if (event == json::parse_event_t::object_start) keys_of_open_objects.emplace_back();
    if (event == json::parse_event_t::object_end) keys_of_open_objects.pop_back();
    if (event == json::parse_event_t::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      SLUICE_CHECK(keys_of_open_objects.back().insert(key).second, Code::kCorrupt,
                   fmt::format("{}: key '{}' appears twice", file_name, printable(key)), fix);
    }
    return true;
  };
  json root;
  try {
    root = json::parse(text.begin(), text.end(), check);
  } catch (const json::exception& e) {
    throw Error(Code::kCorrupt, fmt::format("{}: {}", file_name, printable(without_prefix(e.what()), 200)),
                fix);
  }
  SLUICE_CHECK(root.is_object(), Code::kCorrupt, fmt::format("{}: the text is no JSON object", file_name),
               fix);
  return root;
}

}  // namespace sluice
