#include "apps/output/resume.h"

#include <algorithm>
#include <fstream>
#include <unordered_map>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/log.h"

namespace sluice::apps {
namespace {

using nlohmann::json;

std::unordered_map<std::string, std::int64_t> index_by_id(std::span<const RequestKey> requests) {
  std::unordered_map<std::string, std::int64_t> result;
  result.reserve(requests.size());
  for (const RequestKey& request : requests) {
    const auto [at, is_new] = result.emplace(request.id, static_cast<std::int64_t>(result.size()));
    SLUICE_CHECK(is_new, Code::kInvalidArgument,
                 fmt::format("--resume: requests {} and {} have the same id {}", at->second, result.size(),
                             request.id),
                 "give every request its own id");
  }
  return result;
}

/// Index of the request that `line` answers.
std::int64_t match_line(const std::string& line, std::span<const RequestKey> requests,
                        const std::unordered_map<std::string, std::int64_t>& by_id,
                        const std::string& place) {
  const json result = json::parse(line, nullptr, /*allow_exceptions=*/false);
  const bool is_result =
      result.is_object() && result.contains("id") &&
      (result.contains("error") || (result.contains("prompt_ids") && result.contains("token_ids")));
  SLUICE_CHECK(is_result, Code::kCorrupt, place + ": is no result",
               "choose another --output, or remove the line");
  const std::string id = result.at("id").dump(-1, ' ', false, json::error_handler_t::replace);
  const auto found = by_id.find(id);
  SLUICE_CHECK(found != by_id.end(), Code::kInvalidArgument,
               fmt::format("{}: id {} is not in the input", place, id),
               "resume with the input of the interrupted run");
  if (!result.contains("error")) {
    const json& written = result.at("prompt_ids");
    const auto& asked = requests[static_cast<std::size_t>(found->second)].prompt_ids;
    const bool same = written.is_array() && written.size() == asked.size() &&
                      std::equal(asked.begin(), asked.end(), written.begin());
    SLUICE_CHECK(same, Code::kInvalidArgument,
                 fmt::format("{}: the prompt of id {} differs from the input's", place, id),
                 "resume with the input, tokenizer and --no-bos of the interrupted run");
  }
  return found->second;
}

}  // namespace

ResumePoint scan_output(const std::filesystem::path& output, std::span<const RequestKey> requests,
                        WaitingLines& waiting) {
  ResumePoint point;
  std::ifstream file(output, std::ios::binary);
  SLUICE_CHECK(file.is_open() || !std::filesystem::exists(output), Code::kIo,
               fmt::format("cannot read {}", output.string()), "check its permissions");
  if (!file.is_open()) return point;

  const auto by_id = index_by_id(requests);
  std::vector<bool> seen(requests.size(), false);
  std::string line;
  bool in_prefix = true;
  for (std::int64_t number = 1; std::getline(file, line); ++number) {
    if (file.eof()) {  // getline met the end before a '\n'
      log_info("{}:{}: unfinished last line dropped", output.string(), number);
      break;
    }
    const std::string place = fmt::format("{}:{}", output.string(), number);
    const std::int64_t index = match_line(line, requests, by_id, place);
    SLUICE_CHECK(
        !seen[static_cast<std::size_t>(index)], Code::kInvalidArgument,
        fmt::format("{}: id {} has a line already", place, requests[static_cast<std::size_t>(index)].id),
        "remove one of the two lines");
    seen[static_cast<std::size_t>(index)] = true;
    in_prefix = in_prefix && index == point.next_index;
    if (in_prefix) {
      ++point.next_index;
      point.keep_bytes += static_cast<std::int64_t>(line.size()) + 1;
    } else if (!waiting.contains(index)) {
      waiting.put(index, line + "\n");
    }
  }
  SLUICE_CHECK(!file.bad(), Code::kIo, fmt::format("reading {} failed", output.string()), "check the disk");
  // What a killed run had written to both places.
  while (!waiting.empty() && waiting.front_index() < point.next_index) waiting.pop_front();
  waiting.sync();
  return point;
}

}  // namespace sluice::apps
