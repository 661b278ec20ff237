#include "policy/lane_clock.h"

#include <algorithm>

#include "core/error.h"

namespace sluice::policy::detail {

void LaneClock::submit(PlayedSchedule& played) {
  for (std::size_t i = 0; i < kNumLanes; ++i) {
    if (played.schedule.lane_steps[i].empty()) continue;
    Lane& lane = lanes_[i];
    if (lane.queue.empty() && lane.played == nullptr) lane.seen_sec = now_;
    lane.queue.push_back({&played, 0});
  }
  changed_ = true;
}

bool LaneClock::is_ready(const Step& step) const {
  for (const Wait& wait : step.wait_list()) {
    if (done_[lane_index(wait.lane)] < wait.count) return false;
  }
  return true;
}

void LaneClock::start_ready() {
  if (!changed_) return;
  changed_ = false;
  for (std::size_t i = 0; i < kNumLanes; ++i) {
    Lane& lane = lanes_[i];
    if (lane.played != nullptr || lane.queue.empty()) continue;
    Submitted& head = lane.queue.front();
    const auto index = static_cast<std::size_t>(head.played->schedule.lane_steps[i][head.next]);
    const Step& step = head.played->schedule.steps[index];
    if (!is_ready(step)) continue;
    lane.played = head.played;
    lane.index = index;
    lane.overhead_left_sec = rates_.overhead_sec(static_cast<LaneKind>(i));
    lane.work_left_sec = head.played->work_sec[index];
    head.played->times[index].start_sec = now_;
    use_[i].stalled_sec += now_ - lane.seen_sec;
    working_ |= 1U << i;
    if (++head.next == head.played->schedule.lane_steps[i].size()) lane.queue.pop_front();
  }
}

double LaneClock::sec_to_end(std::size_t i) const {
  const auto kind = static_cast<LaneKind>(i);
  return lanes_[i].overhead_left_sec / rates_.overhead_share(kind, working_) +
         lanes_[i].work_left_sec / rates_.share(kind, working_);
}

void LaneClock::progress(std::size_t i, unsigned working, double sec) {
  const auto kind = static_cast<LaneKind>(i);
  Lane& lane = lanes_[i];
  // Rounding must not leave a sliver that takes a step of its own.
  const auto rest = [](double left) { return left > 1e-12 ? left : 0; };
  const double share = rates_.overhead_share(kind, working);
  const double of_overhead = std::min(sec, lane.overhead_left_sec / share);
  lane.overhead_left_sec = rest(lane.overhead_left_sec - of_overhead * share);
  lane.work_left_sec = rest(lane.work_left_sec - (sec - of_overhead) * rates_.share(kind, working));
}

bool LaneClock::advance(double limit) {
  start_ready();
  double first = std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < kNumLanes; ++i) {
    if ((working_ >> i & 1U) == 0) continue;
    first = std::min(first, sec_to_end(i));
  }
  if (working_ == 0 && limit == std::numeric_limits<double>::infinity()) return false;
  if (now_ + first > limit) {
    first = limit - now_;
    now_ = limit;
  } else {
    now_ += first;
  }
  const unsigned were_working = working_;
  for (std::size_t i = 0; i < kNumLanes; ++i) {
    if ((were_working >> i & 1U) == 0) continue;
    progress(i, were_working, first);
    if (lanes_[i].overhead_left_sec == 0 && lanes_[i].work_left_sec == 0) finish(i);
  }
  return true;
}

void LaneClock::finish(std::size_t i) {
  Lane& lane = lanes_[i];
  const Step& step = lane.played->schedule.steps[lane.index];
  StepTime& time = lane.played->times[lane.index];
  time.end_sec = now_;
  use_[i].steps += 1;
  use_[i].bytes += step.bytes;
  use_[i].busy_sec += time.end_sec - time.start_sec;
  done_[i] = step.seq;
  lane.played = nullptr;
  lane.seen_sec = now_;
  working_ &= ~(1U << i);
  changed_ = true;
}

void LaneClock::run_until(LaneKind lane, std::int64_t count) {
  while (done_[lane_index(lane)] < count) {
    SLUICE_ASSERT(advance(std::numeric_limits<double>::infinity()));  // waits name earlier steps only
  }
}

void LaneClock::run_until(const std::array<std::int64_t, kNumLanes>& last_seq) {
  for (std::size_t i = 0; i < kNumLanes; ++i) run_until(static_cast<LaneKind>(i), last_seq[i]);
}

void LaneClock::run_until(double sec) {
  while (now_ < sec) advance(sec);
}

}  // namespace sluice::policy::detail
