#include "apps/generate/progress.h"

#include <condition_variable>
#include <cstdio>
#include <mutex>
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

void show(const std::function<ProgressSample()>& sample, bool is_tty, const std::stop_token& stop) {
  using namespace std::chrono_literals;
  const auto interval = is_tty ? std::chrono::milliseconds(500) : std::chrono::milliseconds(10'000);
  std::mutex mutex;
  std::condition_variable_any wake;
  ProgressSample before = sample();
  bool shown = false;
  for (;;) {
    {
      std::unique_lock lock(mutex);
      wake.wait_for(lock, stop, interval, [] { return false; });
    }
    if (stop.stop_requested()) break;
    ProgressSample now = sample();
    std::string text = progress_text(before, now);
    if (is_tty) {
      // A text that wraps could not be rewritten in place.
      text = fmt::format("\r{:.{}}\x1b[K", text, terminal_columns() - 1);
    } else {
      text += '\n';
    }
    std::fputs(text.c_str(), stderr);
    shown = true;
    before = std::move(now);
  }
  if (is_tty && shown) std::fputs("\r\x1b[K", stderr);
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

ProgressLine::ProgressLine(std::function<ProgressSample()> sample, bool is_tty)
    : thread_([sample = std::move(sample), is_tty](const std::stop_token& stop) {
        show(sample, is_tty, stop);
      }) {}

ProgressLine::~ProgressLine() = default;

}  // namespace sluice::apps
