#include "apps/convert_progress.h"

#include <cmath>
#include <cstdio>
#include <unistd.h>

#include <fmt/format.h>

#include "core/log.h"
#include "core/units.h"

namespace sluice::apps {
namespace {

std::string duration_text(double seconds) {
  const auto whole = std::llround(seconds);
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {} s", whole / 60, whole % 60);
  return fmt::format("{} h {} min", whole / 3600, whole / 60 % 60);
}

}  // namespace

std::string byte_progress_text(std::string_view what, std::int64_t done_bytes, std::int64_t total_bytes,
                               double bytes_per_sec) {
  const double percent =
      total_bytes > 0 ? 100.0 * static_cast<double>(done_bytes) / static_cast<double>(total_bytes) : 100;
  std::string text = fmt::format("{}: {} of {} ({:.0f} %)", what, format_bytes(done_bytes),
                                 format_bytes(total_bytes), percent);
  if (bytes_per_sec > 0) {
    text += fmt::format(", {:.2f} GB/s, {} left", bytes_per_sec / 1e9,
                        duration_text(static_cast<double>(total_bytes - done_bytes) / bytes_per_sec));
  }
  return text;
}

ByteProgressLine::ByteProgressLine(std::string what, std::int64_t start_bytes)
    : what_(std::move(what)),
      start_bytes_(start_bytes),
      is_tty_(::isatty(STDERR_FILENO) == 1),
      last_(start_) {}

ByteProgressLine::~ByteProgressLine() {
  if (is_tty_ && shown_) std::fputs("\r\x1b[K", stderr);
}

void ByteProgressLine::show(std::int64_t done_bytes, std::int64_t total_bytes) {
  const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  show(done_bytes, total_bytes, seconds > 0 ? static_cast<double>(done_bytes - start_bytes_) / seconds : 0);
}

void ByteProgressLine::show(std::int64_t done_bytes, std::int64_t total_bytes, double bytes_per_sec) {
  using namespace std::chrono_literals;
  const Clock::time_point now = Clock::now();
  if (now - last_ < (is_tty_ ? 200ms : 10000ms) || !log_enabled(LogLevel::kInfo)) return;
  last_ = now;
  const std::string text = byte_progress_text(what_, done_bytes, total_bytes, bytes_per_sec);
  if (is_tty_) {
    std::fputs(fmt::format("\r{}\x1b[K", text).c_str(), stderr);
    shown_ = true;
  } else {
    log_info("{}", text);
  }
}

}  // namespace sluice::apps
