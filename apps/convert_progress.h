// How far a conversion or a check of a store is: one line on stderr, rewritten on a terminal, a line of its
// own every ten seconds elsewhere. One thread at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace sluice::apps {

/// "convert: 3.20 of 12.40 GiB (25 %), 0.91 GB/s, 1 min 5 s left". Nothing is said of rate and time before
/// the first byte.
std::string byte_progress_text(std::string_view what, std::int64_t done_bytes, std::int64_t total_bytes,
                               double bytes_per_sec);

class ByteProgressLine {
 public:
  /// `what` begins the line. Rates count from now and from `start_bytes`.
  explicit ByteProgressLine(std::string what, std::int64_t start_bytes = 0);
  /// Ends a line that was being rewritten.
  ~ByteProgressLine();
  ByteProgressLine(const ByteProgressLine&) = delete;
  ByteProgressLine& operator=(const ByteProgressLine&) = delete;

  void show(std::int64_t done_bytes, std::int64_t total_bytes);
  void show(std::int64_t done_bytes, std::int64_t total_bytes, double bytes_per_sec);

 private:
  using Clock = std::chrono::steady_clock;
  const std::string what_;
  const std::int64_t start_bytes_;
  const bool is_tty_;
  const Clock::time_point start_ = Clock::now();
  Clock::time_point last_;
  bool shown_ = false;
};

}  // namespace sluice::apps
