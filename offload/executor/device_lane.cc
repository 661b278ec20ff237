// Lanes whose streams are asynchronous: one thread enqueues steps ahead, another sees them finish.
#include <algorithm>

#include <fmt/format.h>

#include "offload/executor/executor.h"
#include "offload/executor/lane.h"

namespace sluice::offload {

using detail::clock_sec;
using detail::is_between_passes;
using detail::kNeverSpin;
using detail::pack;
using detail::pause_briefly;
using detail::wait_until;
using policy::lane_index;
using policy::LaneKind;
using policy::Step;

void Executor::bind_thread(Lane& lane) {
  try {
    lane.stream->bind_thread();
  } catch (...) {
    fail(fmt::format("the start of the {} lane", lane_name(lane.kind)), Status::from_current_exception());
  }
}

/// Orders the lane's next step behind what it waits for: on the device where both are there, by blocking this
/// thread where the other lane is a thread.
void Executor::enqueue_waits(Lane& lane, const Step& step) {
  for (const policy::Wait& needed : step.wait_list()) {
    const std::size_t other = lane_index(needed.lane);
    if (lanes_[other]->stream == nullptr) {
      wait(needed.lane, needed.count);
      continue;
    }
    wait_until(enqueued_[other], is_between_passes(needed.lane) ? spin_ : kNeverSpin,
               [&](std::int64_t enqueued) { return enqueued >= needed.count; });
    if (done_[other].load() < needed.count && !skip_.load()) {
      lane.stream->wait_for_step(*lanes_[other]->stream, needed.count);
    }
  }
}

/// What a step enqueued before it failed is awaited like any other work: nobody's memory is used once the
/// steps count as finished. False if the device does not take that either.
bool Executor::end_failed_step(Lane& lane, const Step& step) noexcept {
  try {
    lane.stream->end_step(step.seq);
    return true;
  } catch (...) {
    return false;
  }
}

void Executor::enqueue_loop(Lane& lane) {
  const std::size_t own = lane_index(lane.kind);
  bind_thread(lane);
  while (next_step(lane, /*block=*/true)) {
    const Submitted from = lane.current;
    const auto index = static_cast<std::size_t>(from.schedule->lane_steps[own][lane.position++]);
    const Step& step = from.schedule->steps[index];
    wait(lane.kind, step.seq - kernels::Stream::kMaxStepsAhead);
    Lane::Enqueued entry{.step = &step, .index = index, .from = from, .seen_sec = clock_sec()};
    bool begun = false;
    try {
      enqueue_waits(lane, step);
      if (!skip_.load()) {
        if (hook_) hook_(step);
        entry.enqueue_sec = clock_sec();
        lane.stream->begin_step(step.seq);
        begun = true;
        entry.bytes = runner_.run(step);
        lane.stream->end_step(step.seq);
        entry.on_stream = true;
      }
    } catch (...) {
      fail(lane, step, Status::from_current_exception());
      if (begun) entry.on_stream = end_failed_step(lane, step);
    }
    lane.enqueued[static_cast<std::size_t>(step.seq) % lane.enqueued.size()] = entry;
    enqueued_[own].store(step.seq);
    enqueued_[own].notify_all();
  }
  const std::int64_t end = enqueued_[own].load() + 1;  // an entry without a step ends the completion thread
  wait(lane.kind, end - kernels::Stream::kMaxStepsAhead);
  lane.enqueued[static_cast<std::size_t>(end) % lane.enqueued.size()] = {};
  enqueued_[own].store(end);
  enqueued_[own].notify_all();
}

/// When the last of the asynchronous steps that a finished one waited for ended. Their completions may still
/// be on their way, so this takes a moment.
double Executor::end_of_waits(const Step& step) const {
  double end = 0;
  for (const policy::Wait& needed : step.wait_list()) {
    const Lane& other = *lanes_[lane_index(needed.lane)];
    if (other.stream == nullptr) continue;
    wait(needed.lane, needed.count);
    const auto& ended = other.ended_sec[static_cast<std::size_t>(needed.count) % other.ended_sec.size()];
    end = std::max(end, ended.load());
  }
  return end;
}

void Executor::completion_loop(Lane& lane) {
  const std::size_t own = lane_index(lane.kind);
  bind_thread(lane);
  double last_end = 0;
  for (std::int64_t seq = 1;; ++seq) {
    const bool spins = lane.kind == LaneKind::kD2hUrgent;  // it brings the results
    wait_until(enqueued_[own], spins ? spin_ : kNeverSpin,
               [&](std::int64_t enqueued) { return enqueued >= seq; });
    const Lane::Enqueued entry = lane.enqueued[static_cast<std::size_t>(seq) % lane.enqueued.size()];
    if (entry.step == nullptr) return;
    kernels::StepSpan span{entry.seen_sec, entry.seen_sec};
    if (entry.on_stream) {
      lane.awaited.store(pack(*entry.step));
      try {
        while (spins && spin_.load(std::memory_order_relaxed) && !lane.stream->is_step_done(seq))
          pause_briefly();
        span = lane.stream->await_step(seq);
        // The device's clock and ours drift apart, but a step lies between its submission, or the end of what
        // it follows, and our seeing its end, which comes after we have seen those ends.
        double earliest = std::max(entry.enqueue_sec, last_end);
        if (entry.from.times != nullptr) earliest = std::max(earliest, end_of_waits(*entry.step));
        const double seen_end = clock_sec();
        span.start_sec = std::clamp(span.start_sec, earliest, seen_end);
        span.end_sec = std::clamp(span.end_sec, span.start_sec, seen_end);
      } catch (...) {
        fail(lane, *entry.step, Status::from_current_exception());
      }
      lane.awaited.store(0);
    }
    {
      MutexLock lock(lane.mutex);
      lane.counters.steps += 1;
      lane.counters.bytes += entry.bytes;
      lane.counters.stalled_sec += std::max(0.0, span.start_sec - std::max(last_end, entry.seen_sec));
      lane.counters.busy_sec += span.end_sec - span.start_sec;
    }
    last_end = std::max(last_end, span.end_sec);
    lane.ended_sec[static_cast<std::size_t>(seq) % lane.ended_sec.size()].store(last_end);
    finish_step(lane, *entry.step, entry.index, entry.from, span.start_sec, span.end_sec);
  }
}

}  // namespace sluice::offload
