// Writes the timeline of a run as a Chrome trace (open it in Perfetto): one row per lane, one slice per step.
// Streams to the file, so its memory does not grow. One thread.
#pragma once

#include <filesystem>
#include <fstream>
#include <vector>

#include "policy/check_schedule.h"
#include "policy/step.h"

namespace sluice::offload {

class TraceWriter {
 public:
  /// Throws Error{kIo} if the file cannot be written.
  explicit TraceWriter(const std::filesystem::path& file);
  /// Appends the steps of a finished schedule.
  void add(const policy::Schedule& schedule, const std::vector<policy::StepTime>& times);
  /// Completes the file for now; a later `add` goes on where it ended. Throws Error{kIo} if anything could
  /// not be written.
  void end_run();

 private:
  void check() const;

  std::filesystem::path path_;
  std::ofstream out_;
};

}  // namespace sluice::offload
