// One line on stderr while a run goes on. The text is a pure function; the line belongs to one thread that it
// starts.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <thread>

#include "offload/engine.h"

namespace sluice::apps {

/// Where a run stands.
struct ProgressSample {
  double at_sec = 0;
  std::int64_t done = 0;
  std::int64_t total = 0;
  offload::RunStats stats;
};

/// "12/64 requests  1536 tokens  48.2 tokens/s  disk_read 1.61 GB/s (stalled 2 %)  h2d ...": rates are of the
/// time between the samples; lanes that never moved a byte are left out. Links are shown against the time
/// that they were stalled, waiting for others.
std::string progress_text(const ProgressSample& before, const ProgressSample& now);

/// Shows progress_text every half second until destroyed, on one line that is rewritten (`is_tty`), or every
/// ten seconds on lines of its own.
class ProgressLine {
 public:
  ProgressLine(std::function<ProgressSample()> sample, bool is_tty);
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

 private:
  std::jthread thread_;
};

}  // namespace sluice::apps
