// One line on stderr while a run goes on.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

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

/// Rewrites one line on a terminal twice a second, or adds one every ten seconds. One thread: the one that
/// runs the engine, which calls update() with every token, so that a sample needs no lock.
class ProgressLine {
 public:
  explicit ProgressLine(bool is_tty);
  /// Clears the line.
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  /// Takes a sample and shows it if the last one is old enough.
  void update(const std::function<ProgressSample()>& sample);

 private:
  using Clock = std::chrono::steady_clock;
  const bool is_tty_;
  Clock::time_point next_ = Clock::now();  // the first sample is shown at once: loading may take long
  ProgressSample before_;
  bool shown_ = false;
};

}  // namespace sluice::apps
