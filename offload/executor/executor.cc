#include "offload/executor/executor.h"

#include <algorithm>

#include <fmt/format.h>

#include "offload/clock.h"
#include "offload/executor/lane.h"

namespace sluice::offload {

using detail::is_between_passes;
using detail::kMaxSubmitted;
using detail::kNeverSpin;
using detail::kRing;
using detail::pack;
using detail::wait_until;
using policy::kNumLanes;
using policy::lane_index;
using policy::LaneKind;
using policy::Step;
using policy::StepKind;

namespace {

/// Whether only decoder layers have such steps. Unit i carries layer i - 1 (core/model/spec.h).
bool is_of_layer(StepKind kind) {
  switch (kind) {
    case StepKind::kReadKv:
    case StepKind::kLoadKv:
    case StepKind::kPre:
    case StepKind::kAttend:
    case StepKind::kSendQkv:
    case StepKind::kSendAttention:
    case StepKind::kStoreKv:
    case StepKind::kWriteKv:
    case StepKind::kPost:
      return true;
    default:
      return false;
  }
}

std::string step_text(StepKind kind, std::int16_t unit, std::int32_t pass) {
  std::string text = fmt::format("{} of unit {}", step_kind_name(kind), unit);
  const std::string layer = is_of_layer(kind) ? fmt::format("layer {}", unit - 1) : "";
  const std::string number = pass >= 0 ? fmt::format("pass {}", pass) : "";
  if (layer.empty() && number.empty()) return text;
  return text + fmt::format(" ({}{}{})", layer, layer.empty() || number.empty() ? "" : ", ", number);
}

/// A step and how many after it share its end.
std::string group_text(std::string first, std::size_t group) {
  return group == 1 ? first : std::move(first) + fmt::format(" or one of the next {} steps", group - 1);
}

std::string packed_text(std::uint64_t word) {
  return group_text(
      step_text(static_cast<StepKind>(word >> 8 & 0xFF), static_cast<std::int16_t>(word >> 16 & 0xFFFF),
                static_cast<std::int32_t>(word >> 32)),
      (word >> 1 & 0x7F) + 1);
}

}  // namespace

void detail::pause_briefly() {
#if defined(__x86_64__)
  for (int i = 0; i < 16; ++i) __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

Executor::Executor(StepRunner& runner, std::unique_ptr<BlockIo> disk_read,
                   std::unique_ptr<BlockIo> disk_write, StepHook hook,
                   const kernels::ThreadMaker& make_thread)
    : runner_(runner), hook_(std::move(hook)), started_sec_(clock_sec()) {
  for (std::size_t i = 0; i < kNumLanes; ++i) {
    lanes_[i] = std::make_unique<Lane>();
    lanes_[i]->kind = static_cast<LaneKind>(i);
  }
  lanes_[lane_index(LaneKind::kDiskRead)]->io = std::move(disk_read);
  lanes_[lane_index(LaneKind::kDiskWrite)]->io = std::move(disk_write);
  for (auto& lane : lanes_) {
    kernels::Stream* stream = runner.stream(lane->kind);
    if (stream != nullptr && stream->asynchronous()) lane->stream = stream;
  }
  try {
    start_lanes(make_thread);
  } catch (...) {
    stop_lanes();
    throw;
  }
}

Executor::~Executor() { stop_lanes(); }

void Executor::start_lanes(const kernels::ThreadMaker& make_thread) {
  const auto num_threads = kNumLanes + std::count_if(lanes_.begin(), lanes_.end(), [](const auto& lane) {
                             return lane->stream != nullptr;
                           });
  kernels::ThreadStarter starter("the executor", static_cast<int>(num_threads), make_thread);
  for (auto& lane : lanes_) {
    Lane& own = *lane;
    own.requests.reserve(1024);
    own.thread = starter.start([this, &own] {
      own.io ? disk_loop(own) : own.stream != nullptr ? enqueue_loop(own) : lane_loop(own);
    });
    if (own.stream != nullptr) own.completion_thread = starter.start([this, &own] { completion_loop(own); });
  }
}

void Executor::stop_lanes() {
  skip_rest();
  for (auto& lane : lanes_) {
    // A lane that sleeps on `submitted` wakes only when its value changes: hand it an empty schedule.
    lane->stop.store(true);
    lane->ring[lane->submitted.load() % kRing] = {};
    lane->submitted.fetch_add(1);
    lane->submitted.notify_all();
  }
  for (auto& lane : lanes_) {
    if (lane->thread.joinable()) lane->thread.join();
    if (lane->completion_thread.joinable()) lane->completion_thread.join();
  }
}

void Executor::submit(const policy::Schedule& schedule, std::vector<policy::StepTime>* times) {
  for (auto& lane : lanes_) {
    if (schedule.lane_steps[lane_index(lane->kind)].empty())
      continue;  // or an idle lane's ring would fill up
    const std::uint64_t number = lane->submitted.load(std::memory_order_relaxed);
    SLUICE_ASSERT(number - lane->taken.load() < kMaxSubmitted);
    lane->ring[number % kRing] = {&schedule, times};
    lane->submitted.store(number + 1);
    lane->submitted.notify_all();
  }
}

void Executor::wait(LaneKind lane, std::int64_t count) const {
  const bool spins = lanes_[lane_index(lane)]->stream != nullptr && is_between_passes(lane);
  wait_until(done_[lane_index(lane)], spins ? spin_ : kNeverSpin,
             [&](std::int64_t done) { return done >= count; });
}

void Executor::wait_all(const std::array<std::int64_t, kNumLanes>& last_seq) const {
  for (std::size_t i = 0; i < kNumLanes; ++i) wait(static_cast<LaneKind>(i), last_seq[i]);
}

void Executor::skip_rest() { skip_.store(true); }

Status Executor::status() const {
  MutexLock lock(status_mutex_);
  return status_;
}

void Executor::fail(const std::string& where, const Status& status) {
  {
    MutexLock lock(status_mutex_);
    if (status_.ok()) status_ = Status(status.code(), fmt::format("{}: {}", where, status.message()));
  }
  skip_.store(true);
}

void Executor::fail(const Lane& lane, const Step& step, const Status& status, std::size_t group) {
  std::string where = group_text(step_text(step.kind, step.unit, step.pass), group);
  // A device reports a step's failure at whatever call comes next, so the culprit may be any of these.
  const char* separator = ", with these unfinished on the device: ";
  for (const auto& other : lanes_) {
    const std::uint64_t awaited = other->awaited.load();
    if (status.code() != Code::kDevice || lane.stream == nullptr || awaited == 0 ||
        awaited == pack(step, group))
      continue;
    where += fmt::format("{}{} {}", separator, lane_name(other->kind), packed_text(awaited));
    separator = "; ";
  }
  fail(where, status);
}

std::array<LaneCounters, kNumLanes> Executor::counters() const {
  std::array<LaneCounters, kNumLanes> result;
  for (std::size_t i = 0; i < kNumLanes; ++i) {
    MutexLock lock(lanes_[i]->mutex);
    result[i] = lanes_[i]->counters;
  }
  return result;
}

double Executor::now_sec() const { return clock_sec() - started_sec_; }

/// Makes `lane.current` and `lane.position` name the next step. Without `block`, false if there is none yet;
/// with it, false only when the executor stops.
bool Executor::next_step(Lane& lane, bool block) {
  while (true) {
    if (lane.position < lane.count) return true;
    const std::uint64_t taken = lane.taken.load(std::memory_order_relaxed);
    if (lane.submitted.load() == taken) {
      if (lane.stop.load() || !block) return false;
      const bool spins = lane.stream != nullptr && is_between_passes(lane.kind);
      wait_until(lane.submitted, spins ? spin_ : kNeverSpin, [&](std::uint64_t n) { return n != taken; });
      continue;
    }
    lane.current = lane.ring[taken % kRing];
    lane.position = 0;
    lane.count = lane.current.schedule == nullptr
                     ? 0
                     : lane.current.schedule->lane_steps[lane_index(lane.kind)].size();
    lane.taken.store(taken + 1);
  }
}

bool Executor::ready(const Step& step) const {
  for (const policy::Wait& wait : step.wait_list()) {
    if (done_[lane_index(wait.lane)].load() < wait.count) return false;
  }
  return true;
}

void Executor::wait_for(const Step& step) const {
  for (const policy::Wait& needed : step.wait_list()) wait(needed.lane, needed.count);
}

void Executor::finish_step(Lane& lane, const Step& step, std::size_t index, const Submitted& from,
                           double start_sec, double end_sec) {
  if (step.kind == StepKind::kPost && step.unit == 1 && first_layer_end_sec_.load() == 0)
    first_layer_end_sec_.store(end_sec);
  if (from.times != nullptr) (*from.times)[index] = {start_sec - started_sec_, end_sec - started_sec_};
  done_[lane_index(lane.kind)].store(step.seq);
  done_[lane_index(lane.kind)].notify_all();
}

void Executor::lane_loop(Lane& lane) {
  while (next_step(lane, /*block=*/true)) {
    const Submitted from = lane.current;
    const auto index =
        static_cast<std::size_t>(from.schedule->lane_steps[lane_index(lane.kind)][lane.position++]);
    const Step& step = from.schedule->steps[index];
    const double seen = clock_sec();
    wait_for(step);
    const double start = clock_sec();
    std::int64_t bytes = 0;
    if (!skip_.load()) {
      try {
        if (hook_) hook_(step);
        bytes = runner_.run(step);
      } catch (...) {
        fail(lane, step, Status::from_current_exception());
      }
    }
    const double end = clock_sec();
    {
      MutexLock lock(lane.mutex);
      lane.counters.steps += 1;
      lane.counters.bytes += bytes;
      lane.counters.stalled_sec += start - seen;
      lane.counters.busy_sec += end - start;
    }
    finish_step(lane, step, index, from, start, end);
  }
}

}  // namespace sluice::offload
