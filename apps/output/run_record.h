// The file beside an output, `<output>.sluice.json`, that says what decided its results: so that --resume
// continues the same run and no other, and an unfinished run is not overwritten. Thread-safe.
//
// What cannot change a result (placement, budgets, threads) is not recorded and may differ on resume.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

namespace sluice::apps {

struct RunRecord {
  std::string model;                           ///< its fingerprint
  std::map<std::string, std::string> options;  ///< by name, as printed
  std::int64_t num_requests = 0;
  std::string requests_hash;  ///< over all of them: ids, prompts and parameters
  bool complete = false;      ///< every request has its line

  friend bool operator==(const RunRecord&, const RunRecord&) = default;
};

std::filesystem::path run_record_path(const std::filesystem::path& output);

/// Empty if there is none. Throws Error{kIo, kCorrupt} naming the file.
std::optional<RunRecord> read_run_record(const std::filesystem::path& output);
/// Replaces the record in one step. Throws Error{kIo}.
void write_run_record(const std::filesystem::path& output, const RunRecord& record);

/// What of model and options differs, "kv_format was fp16 and is fp32, ..."; empty if nothing does.
std::string difference(const RunRecord& before, const RunRecord& now);

}  // namespace sluice::apps
