// A lane of the executor, and how its threads wait. Shared by the three kinds of lanes: executor.cc runs
// those that are plain threads, device_lane.cc the asynchronous ones, disk_lane.cc the disks'. Each group of
// members says who touches it.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "core/mutex.h"
#include "kernels/device/stream.h"
#include "offload/executor/executor.h"
#include "offload/io/block_io.h"
#include "policy/step.h"

namespace sluice::offload {
namespace detail {

constexpr std::size_t kMaxSubmitted = 8;          // schedules that a lane can have waiting
constexpr std::size_t kRing = kMaxSubmitted + 1;  // and the empty one that ends it
constexpr std::size_t kMaxDiskSteps = 16;         // disk steps in flight on a lane
constexpr std::size_t kMaxGroup = 64;             // steps that a stream gets as one
static_assert(4 * kMaxGroup <= kernels::Stream::kMaxStepsAhead && kMaxGroup <= 128);

/// Whether waits on this lane are on the way from one pass to the next.
inline bool is_between_passes(policy::LaneKind lane) {
  return lane == policy::LaneKind::kH2dUrgent || lane == policy::LaneKind::kD2hUrgent ||
         lane == policy::LaneKind::kGpu;
}

/// A group of steps in one word, so that other threads can name it; 0 is none.
inline std::uint64_t pack(const policy::Step& step, std::size_t group = 1) {
  return 1 | static_cast<std::uint64_t>(group - 1) << 1 | static_cast<std::uint64_t>(step.kind) << 8 |
         static_cast<std::uint64_t>(static_cast<std::uint16_t>(step.unit)) << 16 |
         static_cast<std::uint64_t>(static_cast<std::uint32_t>(step.pass)) << 32;
}

/// For loops that wait without sleeping.
void pause_briefly();

inline const std::atomic<bool> kNeverSpin{false};

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

}  // namespace detail

struct Executor::Lane {
  policy::LaneKind kind = policy::LaneKind::kGpu;
  std::unique_ptr<BlockIo> io;        // disk lanes only
  kernels::Stream* stream = nullptr;  // asynchronous lanes only

  // Written by the submitting thread, read by the lane: a ring guarded by its two counters.
  std::array<Submitted, detail::kRing> ring;
  std::atomic<std::uint64_t> submitted{0};
  std::atomic<std::uint64_t> taken{0};
  std::atomic<bool> stop{false};

  // Lane thread only. A schedule whose steps are finished may be rebuilt at any time, so how many it has is
  // noted when it is taken.
  Submitted current;
  std::size_t position = 0, count = 0;  // in current.schedule's list for this lane
  struct InFlight {
    const policy::Step* step = nullptr;
    std::size_t index = 0;
    Submitted from;
    std::int64_t outstanding = 0;  // requests not completed
    std::int64_t bytes = 0;
    double start_sec = 0;
  };
  std::array<InFlight, detail::kMaxDiskSteps> in_flight;
  std::uint64_t first_in_flight = 0, next_in_flight = 0;
  std::vector<IoRequest> requests;  // of the newest step in flight
  std::size_t next_request = 0;

  // Written by an asynchronous lane's thread, read by its completion thread: steps by seq, at most
  // kMaxStepsAhead beyond done_.
  struct Enqueued {
    const policy::Step* step = nullptr;
    std::size_t index = 0;
    Submitted from;
    std::int64_t bytes = 0;
    double seen_sec = 0;     // when the lane came to it
    double enqueue_sec = 0;  // after its waits for threads
    std::size_t group = 1;   // how many steps, from this one on, the stream took as one
    bool on_stream = false;  // of a group's first step: whether the stream has its end
  };
  std::array<Enqueued, kernels::Stream::kMaxStepsAhead> enqueued;
  /// When steps ended, by seq; written by the completion thread.
  std::array<std::atomic<double>, 4 * kernels::Stream::kMaxStepsAhead> ended_sec{};
  /// The stream's step that ends a step, by seq; written before `enqueued_`.
  std::array<std::atomic<std::int64_t>, 4 * kernels::Stream::kMaxStepsAhead> ended_by{};
  std::atomic<std::uint64_t> awaited{0};  // packed: whose end the completion thread waits for

  mutable Mutex mutex;
  LaneCounters counters SLUICE_GUARDED_BY(mutex);

  std::jthread thread, completion_thread;
};

}  // namespace sluice::offload
