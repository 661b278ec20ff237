#include "apps/output/result_output.h"

#include <string_view>
#include <unordered_set>
#include <utility>

#include "apps/output/sink.h"
#include "core/error.h"
#include "core/log.h"
#include "core/store/checksum.h"

namespace sluice::apps {
namespace {

/// True for what cannot be continued: standard output, devices, pipes.
bool is_stream(const std::string& path) {
  if (path == "-") return true;
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  return std::filesystem::exists(status) && !std::filesystem::is_regular_file(status);
}

std::string hash_of(std::span<const RequestKey> requests) {
  std::vector<std::uint64_t> hashes;
  hashes.reserve(requests.size());
  for (const RequestKey& request : requests) hashes.push_back(request.hash);
  return fmt::format("{:016x}", store_checksum(std::as_bytes(std::span(hashes))));
}

/// Ids may repeat, but --resume could not tell such requests apart; better said at the start than after a
/// day.
void warn_of_equal_ids(std::span<const RequestKey> requests) {
  std::unordered_set<std::string_view> seen;
  for (const RequestKey& request : requests) {
    if (seen.insert(request.id).second) continue;
    log_warn("several requests have the id {}: this run goes on, but could not be resumed", request.id);
    return;
  }
}

/// The input of a resumed run may have grown at its end, but not changed.
void check_same_run(const RunRecord& before, const RunRecord& now, std::span<const RequestKey> requests,
                    const std::string& output) {
  const std::string changed = difference(before, now);
  SLUICE_CHECK(changed.empty(), Code::kInvalidArgument,
               fmt::format("--resume: {} was written with another configuration: {}", output, changed),
               "resume with the same options, or choose another --output");
  SLUICE_CHECK(before.num_requests <= now.num_requests, Code::kInvalidArgument,
               fmt::format("--resume: {} belongs to {} requests and the input has {}", output,
                           before.num_requests, now.num_requests),
               "resume with the input of the interrupted run");
  SLUICE_CHECK(before.requests_hash == hash_of(requests.first(static_cast<std::size_t>(before.num_requests))),
               Code::kInvalidArgument, fmt::format("--resume: the requests of {} have changed", output),
               "resume with the input and the options of the interrupted run");
}

}  // namespace

std::filesystem::path waiting_path(const std::filesystem::path& output) {
  return output.string() + ".sluice.waiting";
}

ResultOutput::ResultOutput(const OutputOptions& options, const RunRecord& record,
                           std::span<const RequestKey> requests)
    : options_(options), record_(record), done_(requests.size(), false) {
  record_.complete = false;
  record_.num_requests = static_cast<std::int64_t>(requests.size());
  record_.requests_hash = hash_of(requests);
  if (is_stream(options.path)) {
    SLUICE_CHECK(
        !options.resume, Code::kInvalidArgument,
        fmt::format("--resume cannot continue {}", options.path == "-" ? "standard output" : options.path),
        "give --output FILE");
    return;
  }
  path_ = options.path;
  look_at_file(requests);
  if (!waiting_) return;
  for (std::int64_t i = 0; i < point_.next_index; ++i) done_[static_cast<std::size_t>(i)] = true;
  waiting_->for_each_index([&](std::int64_t index) {
    SLUICE_CHECK(
        index < num_requests(), Code::kCorrupt,
        fmt::format("{}: holds result {} of {}", waiting_path(path_).string(), index, num_requests()),
        "remove the file: the results in it are then computed again");
    done_[static_cast<std::size_t>(index)] = true;
  });
  num_done_before_ = point_.next_index + waiting_->size();
}

void ResultOutput::look_at_file(std::span<const RequestKey> requests) {
  const std::optional<RunRecord> before = read_run_record(path_);
  const std::filesystem::path waiting_file = waiting_path(path_);
  if (options_.resume && before) {
    check_same_run(*before, record_, requests, options_.path);
    waiting_ = std::make_unique<WaitingLines>(options_.waiting_memory_bytes, waiting_file);
    point_ = scan_output(path_, requests, *waiting_);
    return;
  }
  SLUICE_CHECK(!options_.resume || !has_content(path_), Code::kInvalidArgument,
               fmt::format("--resume: {} does not exist, so nobody knows what {} was made with",
                           run_record_path(path_).string(), options_.path),
               "choose another --output, or remove the file");
  warn_of_equal_ids(requests);
  const bool unfinished = before && !before->complete && std::filesystem::exists(path_) &&
                          (has_content(path_) || has_content(waiting_file));
  SLUICE_CHECK(!unfinished, Code::kInvalidArgument,
               fmt::format("{} holds the results of an unfinished run", options_.path),
               "continue it with --resume, or remove the file");
}

void ResultOutput::open() {
  if (path_.empty()) {
    waiting_ = std::make_unique<WaitingLines>(options_.waiting_memory_bytes);
    sink_ = options_.path == "-" ? make_stdout_sink() : make_file_sink(options_.path, 0);
  } else {
    sink_ = make_file_sink(path_, point_.keep_bytes);
    write_run_record(path_, record_);
    if (!waiting_) {  // a fresh run: what an earlier one left is not its own
      std::filesystem::remove(waiting_path(path_));
      waiting_ = std::make_unique<WaitingLines>(options_.waiting_memory_bytes, waiting_path(path_));
    }
  }
  writer_.emplace(*sink_, *waiting_, point_.next_index);
}

void ResultOutput::finish() {
  SLUICE_ASSERT(waiting_->empty());
  sink_->finish();
  if (path_.empty()) return;
  waiting_->remove_file();
  record_.complete = true;
  write_run_record(path_, record_);
}

void ResultOutput::finish_early() {
  if (!writer_) return;  // not opened: the output is as it was
  writer_->write_waiting();
  sink_->finish();
  waiting_->remove_file();
}

}  // namespace sluice::apps
