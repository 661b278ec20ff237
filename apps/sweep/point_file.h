// The output of a sweep: a line that says which sweep it is, then a line for each point as it is finished. A
// later run goes on where a killed one stopped. One thread, but for append().
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "apps/output/sink.h"
#include "apps/sweep/points.h"
#include "core/mutex.h"

namespace sluice::apps {

/// The first line: {"kind": "sweep", "title", "description", "mode", "hardware", "points", "points_hash",
/// ...}. A file belongs to the sweep whose mode, hardware and points_hash are equal.
using SweepHeader = nlohmann::ordered_json;

/// A hash of the points' ids.
std::string points_hash(std::span<const SweepPoint> points);

/// What a file holds: its header and the last line of each point, by number.
struct SweepResults {
  SweepHeader header;
  std::vector<nlohmann::ordered_json> lines;
  std::int64_t keep_bytes = 0;  ///< up to the end of the last whole line
};
/// A last line without its end is dropped. Throws Error{kNotFound, kIo}, Error{kCorrupt} as "file:line: ...".
SweepResults read_sweep_results(const std::string& path);

struct PointFileOptions {
  std::string path = "-";  ///< "-": standard output
  bool resume = false;
};

class PointFile {
 public:
  /// Looks at the file, and with `resume` finds out what is done; writes nothing before open(). Throws
  /// Error{kInvalidArgument} for another sweep's file, or for an unfinished one without `resume`.
  PointFile(const PointFileOptions& options, SweepHeader header, std::span<const SweepPoint> points);

  /// True if the file has a result of the point that is neither a failure nor to be run again: failed points
  /// are tried again.
  bool is_done(const std::string& id) const { return done_.contains(id); }
  std::int64_t num_done() const { return std::ssize(done_); }
  /// Attempts at the point of the runs before, as its last line counts them.
  int attempts(const std::string& id) const {
    const auto found = attempts_.find(id);
    return found == attempts_.end() ? 0 : found->second;
  }

  void open();
  /// Thread-safe. Throws Error{kIo}.
  void append(const nlohmann::ordered_json& line);
  void finish();
  /// Every result, also those of the runs before.
  SweepResults results() const;

 private:
  const PointFileOptions options_;
  const SweepHeader header_;
  SweepResults before_;
  std::set<std::string> done_;
  std::map<std::string, int> attempts_;
  mutable Mutex mutex_;
  std::unique_ptr<Sink> sink_ SLUICE_GUARDED_BY(mutex_);
  std::vector<nlohmann::ordered_json> written_ SLUICE_GUARDED_BY(mutex_);
};

}  // namespace sluice::apps
