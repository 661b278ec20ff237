// Lanes whose streams are asynchronous: one thread enqueues steps ahead, another sees them finish.
#include <algorithm>

#include <fmt/format.h>

#include "offload/clock.h"
#include "offload/executor/executor.h"
#include "offload/executor/lane.h"

namespace sluice::offload {

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
      const Lane& from = *lanes_[other];
      const auto slot = static_cast<std::size_t>(needed.count) % from.ended_by.size();
      lane.stream->wait_for_step(*from.stream, from.ended_by[slot].load());
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

/// How many of the lane's next steps it hands to the stream as one: those that nobody else waits for, up to
/// the first that somebody does. A timeline wants to know each of them.
std::size_t Executor::next_group(const Lane& lane) {
  if (lane.current.times != nullptr) return 1;
  const policy::Schedule& schedule = *lane.current.schedule;
  const auto& steps = schedule.lane_steps[lane_index(lane.kind)];
  std::size_t size = 1;
  while (size < detail::kMaxGroup && lane.position + size < lane.count &&
         schedule.steps[static_cast<std::size_t>(steps[lane.position + size - 1])].joins_next)
    ++size;
  return size;
}

/// The lane's next `size` steps become the stream's step of the last one's number.
void Executor::enqueue_group(Lane& lane, std::size_t size) {
  const std::size_t own = lane_index(lane.kind);
  const Submitted from = lane.current;
  const std::int32_t* const indices = from.schedule->lane_steps[own].data() + lane.position;
  lane.position += size;
  const auto step_at = [&](std::size_t i) -> const Step& {
    return from.schedule->steps[static_cast<std::size_t>(indices[i])];
  };
  const Step& last = step_at(size - 1);
  wait(lane.kind, last.seq - kernels::Stream::kMaxStepsAhead);
  bool begun = false;
  bool ended = false;
  for (std::size_t i = 0; i < size; ++i) {
    const Step& step = step_at(i);
    Lane::Enqueued& entry = lane.enqueued[static_cast<std::size_t>(step.seq) % lane.enqueued.size()];
    entry = {.step = &step,
             .index = static_cast<std::size_t>(indices[i]),
             .from = from,
             .seen_sec = clock_sec(),
             .group = size - i};
    lane.ended_by[static_cast<std::size_t>(step.seq) % lane.ended_by.size()].store(last.seq);
    try {
      if (i == 0) enqueue_waits(lane, step);
      if (skip_.load()) continue;
      if (hook_) hook_(step);
      entry.enqueue_sec = clock_sec();
      if (!begun) lane.stream->begin_step(last.seq);
      begun = true;
      entry.bytes = runner_.run(step);
      if (i + 1 < size) continue;
      lane.stream->end_step(last.seq);
      ended = true;
    } catch (...) {
      fail(lane, step, Status::from_current_exception());
    }
  }
  if (begun && !ended) ended = end_failed_step(lane, last);
  lane.enqueued[static_cast<std::size_t>(step_at(0).seq) % lane.enqueued.size()].on_stream = ended;
  enqueued_[own].store(last.seq);
  enqueued_[own].notify_all();
}

void Executor::enqueue_loop(Lane& lane) {
  const std::size_t own = lane_index(lane.kind);
  bind_thread(lane);
  while (next_step(lane, /*block=*/true)) enqueue_group(lane, next_group(lane));
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

/// Awaits the group of steps that begins with `first`, and gives its span.
kernels::StepSpan Executor::await_group(Lane& lane, std::int64_t first, double last_end) {
  const Lane::Enqueued entry = lane.enqueued[static_cast<std::size_t>(first) % lane.enqueued.size()];
  const std::int64_t seq = first + static_cast<std::int64_t>(entry.group) - 1;
  const bool spins = lane.kind == LaneKind::kD2hUrgent;  // it brings the results
  kernels::StepSpan span{entry.seen_sec, entry.seen_sec};
  if (!entry.on_stream) return span;
  lane.awaited.store(pack(*entry.step, entry.group));
  try {
    while (spins && spin_.load(std::memory_order_relaxed) && !lane.stream->is_step_done(seq)) pause_briefly();
    span = lane.stream->await_step(seq);
    // The device's clock and ours drift apart, but a step lies between its submission, or the end of what
    // it follows, and our seeing its end, which comes after we have seen those ends.
    double earliest = std::max(entry.enqueue_sec, last_end);
    if (entry.from.times != nullptr) earliest = std::max(earliest, end_of_waits(*entry.step));
    const double seen_end = clock_sec();
    span.start_sec = std::clamp(span.start_sec, earliest, seen_end);
    span.end_sec = std::clamp(span.end_sec, span.start_sec, seen_end);
  } catch (...) {
    fail(lane, *entry.step, Status::from_current_exception(), entry.group);
  }
  lane.awaited.store(0);
  return span;
}

void Executor::completion_loop(Lane& lane) {
  const std::size_t own = lane_index(lane.kind);
  bind_thread(lane);
  double last_end = 0;
  for (std::int64_t seq = 1;;) {
    const bool spins = lane.kind == LaneKind::kD2hUrgent;
    wait_until(enqueued_[own], spins ? spin_ : kNeverSpin,
               [&](std::int64_t enqueued) { return enqueued >= seq; });
    const Lane::Enqueued first = lane.enqueued[static_cast<std::size_t>(seq) % lane.enqueued.size()];
    if (first.step == nullptr) return;
    const kernels::StepSpan span = await_group(lane, seq, last_end);
    {
      MutexLock lock(lane.mutex);
      lane.counters.stalled_sec += std::max(0.0, span.start_sec - std::max(last_end, first.seen_sec));
      lane.counters.busy_sec += span.end_sec - span.start_sec;
    }
    last_end = std::max(last_end, span.end_sec);
    for (const std::int64_t end = seq + static_cast<std::int64_t>(first.group); seq < end; ++seq) {
      const Lane::Enqueued entry = lane.enqueued[static_cast<std::size_t>(seq) % lane.enqueued.size()];
      {
        MutexLock lock(lane.mutex);
        lane.counters.steps += 1;
        lane.counters.bytes += entry.bytes;
      }
      lane.ended_sec[static_cast<std::size_t>(seq) % lane.ended_sec.size()].store(last_end);
      finish_step(lane, *entry.step, entry.index, entry.from, span.start_sec, span.end_sec);
    }
  }
}

}  // namespace sluice::offload
