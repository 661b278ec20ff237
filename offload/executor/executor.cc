#include "offload/executor/executor.h"

#include <algorithm>
#include <chrono>

#include <fmt/format.h>

namespace sluice::offload {
namespace {

using policy::kNumLanes;
using policy::lane_index;
using policy::LaneKind;
using policy::Step;
using policy::StepKind;

constexpr std::size_t kMaxSubmitted = 8;          // schedules that a lane can have waiting
constexpr std::size_t kRing = kMaxSubmitted + 1;  // and the empty one that ends it
constexpr std::size_t kMaxDiskSteps = 16;         // disk steps in flight on a lane
constexpr std::chrono::microseconds kPoll{
    300};  // how often a busy disk lane looks whether its next step may start

double clock_sec() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Whether waits on this lane are on the way from one pass to the next.
bool is_between_passes(LaneKind lane) {
  return lane == LaneKind::kH2dUrgent || lane == LaneKind::kD2hUrgent || lane == LaneKind::kGpu;
}

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

/// A step in one word, so that other threads can name it; 0 is none.
std::uint64_t pack(const Step& step) {
  return 1 | static_cast<std::uint64_t>(step.kind) << 8 |
         static_cast<std::uint64_t>(static_cast<std::uint16_t>(step.unit)) << 16 |
         static_cast<std::uint64_t>(static_cast<std::uint32_t>(step.pass)) << 32;
}
std::string packed_text(std::uint64_t word) {
  return step_text(static_cast<StepKind>(word >> 8 & 0xFF), static_cast<std::int16_t>(word >> 16 & 0xFFFF),
                   static_cast<std::int32_t>(word >> 32));
}

void pause_briefly() {
#if defined(__x86_64__)
  for (int i = 0; i < 16; ++i) __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

const std::atomic<bool> kNeverSpin{false};

/// Blocks until `value` satisfies `ready`; spins while `spin` is set.
template <class T, class Ready>
void wait_until(const std::atomic<T>& value, const std::atomic<bool>& spin, const Ready& ready) {
  for (T seen = value.load(); !ready(seen); seen = value.load()) {
    if (spin.load(std::memory_order_relaxed)) {
      pause_briefly();
    } else {
      value.wait(seen);
    }
  }
}

}  // namespace

struct Executor::Lane {
  LaneKind kind = LaneKind::kGpu;
  std::unique_ptr<BlockIo> io;        // disk lanes only
  kernels::Stream* stream = nullptr;  // asynchronous lanes only

  // Written by the submitting thread, read by the lane: a ring guarded by its two counters.
  std::array<Submitted, kRing> ring;
  std::atomic<std::uint64_t> submitted{0};
  std::atomic<std::uint64_t> taken{0};
  std::atomic<bool> stop{false};

  // Lane thread only. A schedule whose steps are finished may be rebuilt at any time, so how many it has is
  // noted when it is taken.
  Submitted current;
  std::size_t position = 0, count = 0;  // in current.schedule's list for this lane
  struct InFlight {
    const Step* step = nullptr;
    std::size_t index = 0;
    Submitted from;
    std::int64_t outstanding = 0;  // requests not completed
    std::int64_t bytes = 0;
    double start_sec = 0;
  };
  std::array<InFlight, kMaxDiskSteps> in_flight;
  std::uint64_t first_in_flight = 0, next_in_flight = 0;
  std::vector<IoRequest> requests;  // of the newest step in flight
  std::size_t next_request = 0;

  // Written by an asynchronous lane's thread, read by its completion thread: steps by seq, at most
  // kMaxStepsAhead beyond done_.
  struct Enqueued {
    const Step* step = nullptr;
    std::size_t index = 0;
    Submitted from;
    std::int64_t bytes = 0;
    double seen_sec = 0;     // when the lane came to it
    double enqueue_sec = 0;  // after its waits for threads
    bool on_stream = false;
  };
  std::array<Enqueued, kernels::Stream::kMaxStepsAhead> enqueued;
  /// When steps ended, by seq; written by the completion thread.
  std::array<std::atomic<double>, 4 * kernels::Stream::kMaxStepsAhead> ended_sec{};
  std::atomic<std::uint64_t> awaited{0};  // packed: the step whose end the completion thread waits for

  mutable Mutex mutex;
  LaneCounters counters SLUICE_GUARDED_BY(mutex);

  std::thread thread, completion_thread;
};

Executor::Executor(StepRunner& runner, std::unique_ptr<BlockIo> disk_read,
                   std::unique_ptr<BlockIo> disk_write, StepHook hook)
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
  for (auto& lane : lanes_) {
    Lane& own = *lane;
    own.requests.reserve(1024);
    own.thread = std::thread([this, &own] {
      own.io ? disk_loop(own) : own.stream != nullptr ? enqueue_loop(own) : lane_loop(own);
    });
    if (own.stream != nullptr) own.completion_thread = std::thread([this, &own] { completion_loop(own); });
  }
}

Executor::~Executor() {
  skip_rest();
  for (auto& lane : lanes_) {
    // A lane that sleeps on `submitted` wakes only when its value changes: hand it an empty schedule.
    lane->stop.store(true);
    lane->ring[lane->submitted.load() % kRing] = {};
    lane->submitted.fetch_add(1);
    lane->submitted.notify_all();
  }
  for (auto& lane : lanes_) {
    lane->thread.join();
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

void Executor::fail(const Lane& lane, const Step& step, const Status& status) {
  std::string where = step_text(step.kind, step.unit, step.pass);
  // A device reports a step's failure at whatever call comes next, so the culprit may be any of these.
  const char* separator = ", with these unfinished on the device: ";
  for (const auto& other : lanes_) {
    const std::uint64_t awaited = other->awaited.load();
    if (status.code() != Code::kDevice || lane.stream == nullptr || awaited == 0 || awaited == pack(step))
      continue;
    where += fmt::format("{}{} {}", separator, lane_name(other->kind), packed_text(awaited));
    separator = "; ";
  }
  fail(where, status);
}

void Executor::bind_thread(Lane& lane) {
  try {
    lane.stream->bind_thread();
  } catch (...) {
    fail(fmt::format("the start of the {} lane", lane_name(lane.kind)), Status::from_current_exception());
  }
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

/// A disk lane starts its steps in order but lets the next one start while earlier ones are in flight, so
/// that the queue stays full; it finishes them in order.
void Executor::disk_loop(Lane& lane) {
  double busy_since = 0;
  const auto slot = [&](std::uint64_t number) -> Lane::InFlight& {
    return lane.in_flight[number % kMaxDiskSteps];
  };
  while (true) {
    const bool all_submitted = lane.next_request == lane.requests.size();
    const bool idle = lane.first_in_flight == lane.next_in_flight;
    if (all_submitted && lane.next_in_flight - lane.first_in_flight < kMaxDiskSteps) {
      if (!next_step(lane, /*block=*/idle)) {
        if (idle) return;
      } else {
        const Submitted from = lane.current;
        const auto index =
            static_cast<std::size_t>(from.schedule->lane_steps[lane_index(lane.kind)][lane.position]);
        const Step& step = from.schedule->steps[index];
        if (idle) {
          const double seen = clock_sec();
          wait_for(step);
          busy_since = clock_sec();
          MutexLock lock(lane.mutex);
          lane.counters.stalled_sec += busy_since - seen;
        }
        if (ready(step)) {
          ++lane.position;
          lane.requests.clear();
          lane.next_request = 0;
          Lane::InFlight& started = slot(lane.next_in_flight);
          started = {.step = &step, .index = index, .from = from, .start_sec = clock_sec()};
          if (!skip_.load()) {
            try {
              if (hook_) hook_(step);
              runner_.io_requests(step, lane.requests);
            } catch (...) {
              lane.requests.clear();
              fail(lane, step, Status::from_current_exception());
            }
          }
          for (IoRequest& request : lane.requests) request.tag = lane.next_in_flight;
          started.outstanding = static_cast<std::int64_t>(lane.requests.size());
          ++lane.next_in_flight;
        }
      }
    }
    try {
      while (lane.next_request < lane.requests.size() &&
             lane.io->try_submit(lane.requests[lane.next_request])) {
        ++lane.next_request;
      }
      if (lane.io->in_flight() > 0) {
        if (const auto completion = lane.io->wait(std::chrono::steady_clock::now() + kPoll)) {
          // After a failure of the queue itself, completions of steps that were given up may still come.
          if (completion->tag >= lane.first_in_flight) {
            Lane::InFlight& step = slot(completion->tag);
            --step.outstanding;
            step.bytes += completion->bytes;
            if (!completion->status.ok()) fail(lane, *step.step, completion->status);
          }
        }
      }
    } catch (...) {
      // The queue itself failed: nothing in flight can be trusted to come back.
      fail(lane, *slot(lane.first_in_flight).step, Status::from_current_exception());
      for (std::uint64_t i = lane.first_in_flight; i < lane.next_in_flight; ++i) slot(i).outstanding = 0;
      lane.next_request = lane.requests.size();
    }
    while (lane.first_in_flight < lane.next_in_flight && slot(lane.first_in_flight).outstanding == 0) {
      const Lane::InFlight done = slot(lane.first_in_flight++);
      const double end = clock_sec();
      {
        MutexLock lock(lane.mutex);
        lane.counters.steps += 1;
        lane.counters.bytes += done.bytes;
        lane.counters.busy_sec += end - busy_since;  // in flight since then without a break
      }
      busy_since = end;
      finish_step(lane, *done.step, done.index, done.from, done.start_sec, end);
    }
  }
}

}  // namespace sluice::offload
