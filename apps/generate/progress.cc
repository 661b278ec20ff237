#include "apps/generate/progress.h"

#include <cstdio>
#include <sys/ioctl.h>
#include <unistd.h>

#include <fmt/format.h>

namespace sluice::apps {
namespace {

double percent_of(double part, double whole) { return whole > 0 ? 100 * part / whole : 0; }

const offload::LaneStats* find_lane(const offload::RunStats& stats, const std::string& name) {
  for (const offload::LaneStats& lane : stats.lanes) {
    if (lane.name == name) return &lane;
  }
  return nullptr;
}

std::size_t terminal_columns() {
  winsize size = {};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

}  // namespace

std::string progress_text(const ProgressSample& before, const ProgressSample& now) {
  const double sec = now.at_sec - before.at_sec;
  const auto rate = [&](double amount) { return sec > 0 ? amount / sec : 0; };
  std::string text = fmt::format(
      "{}/{} requests  {} tokens  {:.1f} tokens/s", now.done, now.total, now.stats.generated_tokens,
      rate(static_cast<double>(now.stats.generated_tokens - before.stats.generated_tokens)));
  for (const offload::LaneStats& lane : now.stats.lanes) {
    if (lane.bytes == 0) continue;
    const offload::LaneStats* past = find_lane(before.stats, lane.name);
    const std::int64_t bytes = lane.bytes - (past != nullptr ? past->bytes : 0);
    const double stalled = lane.stalled_sec - (past != nullptr ? past->stalled_sec : 0);
    text += fmt::format("  {} {:.2f} GB/s (stalled {:.0f} %)", lane.name,
                        rate(static_cast<double>(bytes) / 1e9), percent_of(stalled, sec));
  }
  return text;
}

ProgressLine::ProgressLine(bool is_tty) : is_tty_(is_tty) {}

ProgressLine::~ProgressLine() {
  if (is_tty_ && shown_) std::fputs("\r\x1b[K", stderr);
}

void ProgressLine::update(const std::function<ProgressSample()>& sample) {
  const Clock::time_point now = Clock::now();
  if (now < next_) return;
  next_ = now + (is_tty_ ? std::chrono::milliseconds(500) : std::chrono::milliseconds(10'000));
  ProgressSample current = sample();
  const std::string text = progress_text(before_, current);
  // On a terminal a text that wraps could not be rewritten in place.
  const std::string line =
      is_tty_ ? fmt::format("\r{:.{}}\x1b[K", text, terminal_columns() - 1) : text + "\n";
  std::fputs(line.c_str(), stderr);
  std::fflush(stderr);
  shown_ = true;
  before_ = std::move(current);
}

}  // namespace sluice::apps
