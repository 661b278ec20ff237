// The results of one run on their way out: in input order, to a file that a later run can continue, or to a
// stream. One thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "apps/output/ordered_writer.h"
#include "apps/output/resume.h"
#include "apps/output/run_record.h"
#include "core/units.h"

namespace sluice::apps {

struct OutputOptions {
  std::string path = "-";  ///< "-": standard output
  bool resume = false;
  std::int64_t waiting_memory_bytes = 64_MiB;  ///< of results that wait for their turn
};

class ResultOutput {
 public:
  /// Looks at the output and, with `resume`, finds out what is done; nothing is overwritten before open(), so
  /// that a run that fails to start loses nothing. Throws Error{kInvalidArgument} if the file
  /// holds an unfinished run and `resume` is not set, if `record` differs from the recorded one, and what
  /// scan_output throws; Error{kIo}. `requests` are used only here; number and hash in `record` are taken
  /// from them.
  ResultOutput(const OutputOptions& options, const RunRecord& record, std::span<const RequestKey> requests);

  std::int64_t num_requests() const { return static_cast<std::int64_t>(done_.size()); }
  /// True if an earlier run finished this request.
  bool is_done(std::int64_t index) const { return done_[static_cast<std::size_t>(index)]; }
  std::int64_t num_done_before() const { return num_done_before_; }

  /// Opens the output for writing, and cuts away what is not kept. Throws Error{kIo, kNotFound}.
  void open();
  /// From open() on.
  void put(std::int64_t index, std::string text) { writer_->put(index, std::move(text)); }
  /// Every request has its line: makes the output durable and marks it complete. Throws Error{kIo}.
  void finish();
  /// The run ends early: writes every finished result, in order, so that --resume can go on. Throws
  /// Error{kIo}; what could not be written then stays in the file of waiting results.
  void finish_early();
  std::int64_t num_written() const { return writer_ ? writer_->num_written() : 0; }

 private:
  void look_at_file(std::span<const RequestKey> requests);

  const OutputOptions options_;
  RunRecord record_;
  std::filesystem::path path_;  ///< empty for a stream, which has neither record nor file of waiting results
  ResumePoint point_;
  std::vector<bool> done_;
  std::int64_t num_done_before_ = 0;
  std::unique_ptr<WaitingLines> waiting_;
  std::unique_ptr<Sink> sink_;
  std::optional<OrderedWriter> writer_;
};

/// `<output>.sluice.waiting`
std::filesystem::path waiting_path(const std::filesystem::path& output);

}  // namespace sluice::apps
