#include "apps/output/run_record.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/store/posix_file.h"

namespace sluice::apps {
namespace {

constexpr int kRecordVersion = 1;
constexpr std::int64_t kMaxRecordBytes = 1 << 20;

}  // namespace

std::filesystem::path run_record_path(const std::filesystem::path& output) {
  return output.string() + ".sluice.json";
}

std::optional<RunRecord> read_run_record(const std::filesystem::path& output) {
  const std::filesystem::path path = run_record_path(output);
  if (!std::filesystem::exists(path)) return std::nullopt;
  const std::string text = detail::read_text_file(path, kMaxRecordBytes);
  try {
    const nlohmann::json json = nlohmann::json::parse(text);
    RunRecord record;
    SLUICE_CHECK(json.at("sluice_run").get<int>() == kRecordVersion, Code::kUnsupported,
                 fmt::format("{}: written by another version of Sluice", path.string()),
                 "finish the run with that version, or choose another --output");
    record.model = json.at("model").get<std::string>();
    record.options = json.at("options").get<std::map<std::string, std::string>>();
    record.num_requests = json.at("num_requests").get<std::int64_t>();
    record.requests_hash = json.at("requests_hash").get<std::string>();
    record.complete = json.at("complete").get<bool>();
    return record;
  } catch (const nlohmann::json::exception& e) {
    throw Error(Code::kCorrupt, fmt::format("{}: not the record of a run: {}", path.string(), e.what()),
                "remove it together with the output, or choose another --output");
  }
}

void write_run_record(const std::filesystem::path& output, const RunRecord& record) {
  const nlohmann::ordered_json json = {{"sluice_run", kRecordVersion},
                                       {"model", record.model},
                                       {"options", record.options},
                                       {"num_requests", record.num_requests},
                                       {"requests_hash", record.requests_hash},
                                       {"complete", record.complete}};
  detail::replace_text_file(run_record_path(output),
                            json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

std::string difference(const RunRecord& before, const RunRecord& now) {
  std::string text;
  const auto compare = [&](const std::string& name, const std::string& was, const std::string& is) {
    if (was == is) return;
    text += fmt::format("{}{} was {} and is {}", text.empty() ? "" : ", ", name, was.empty() ? "unset" : was,
                        is.empty() ? "unset" : is);
  };
  compare("model", before.model, now.model);
  std::map<std::string, std::string> names = before.options;
  names.insert(now.options.begin(), now.options.end());
  const auto value = [](const RunRecord& record, const std::string& name) {
    const auto found = record.options.find(name);
    return found == record.options.end() ? std::string() : found->second;
  };
  for (const auto& [name, ignored] : names) compare(name, value(before, name), value(now, name));
  return text;
}

}  // namespace sluice::apps
