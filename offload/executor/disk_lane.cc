// The disks' lanes: several steps in flight, finished in order.
#include <chrono>

#include "offload/clock.h"
#include "offload/executor/executor.h"
#include "offload/executor/lane.h"

namespace sluice::offload {

using detail::kMaxDiskSteps;
using policy::lane_index;
using policy::Step;

namespace {

constexpr std::chrono::microseconds kPoll{
    300};  // how often a busy disk lane looks whether its next step may start

}  // namespace

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
