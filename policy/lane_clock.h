// The clock of a simulated run: lanes that work at rates which depend on who else works. Time jumps from one
// end of a step to the next. Not thread-safe; belongs to simulate.cc.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <limits>
#include <vector>

#include "policy/check_schedule.h"
#include "policy/rates.h"
#include "policy/simulate.h"
#include "policy/step.h"

namespace sluice::policy::detail {

/// A schedule whose steps are being executed.
struct PlayedSchedule {
  Schedule schedule;
  std::vector<double> work_sec;  ///< of each step, alone; its lane's overhead comes on top
  std::vector<StepTime> times;
};

class LaneClock {
 public:
  explicit LaneClock(const Rates& rates) : rates_(rates) {}

  /// Hands the steps to their lanes; `played` stays until they are done.
  void submit(PlayedSchedule& played);
  /// Goes on until `lane` has finished its first `count` steps.
  void run_until(LaneKind lane, std::int64_t count);
  void run_until(const std::array<std::int64_t, kNumLanes>& last_seq);
  /// Goes on until this time.
  void run_until(double sec);

  double now_sec() const { return now_; }
  const std::array<SimulatedLane, kNumLanes>& lanes() const { return use_; }

 private:
  struct Submitted {
    PlayedSchedule* played = nullptr;
    std::size_t next = 0;  ///< position in its lane's steps
  };
  struct Lane {
    std::deque<Submitted> queue;  ///< schedules with steps to start
    // The step at work.
    PlayedSchedule* played = nullptr;
    std::size_t index = 0;
    double overhead_left_sec = 0;  ///< alone; comes first
    double work_left_sec = 0;      ///< alone
    double seen_sec = 0;           ///< when the lane came to the step at its head
  };

  bool is_ready(const Step& step) const;
  /// Until the lane's step ends if the same lanes go on working.
  double sec_to_end(std::size_t lane) const;
  void progress(std::size_t lane, unsigned working, double sec);
  void start_ready();
  /// To the next end of a step, or to `limit` if that comes first. False if nothing works.
  bool advance(double limit);
  void finish(std::size_t lane);

  const Rates& rates_;
  std::array<Lane, kNumLanes> lanes_;
  std::array<std::int64_t, kNumLanes> done_{};
  std::array<SimulatedLane, kNumLanes> use_{};
  unsigned working_ = 0;  // bit i: lane i
  bool changed_ = false;  // something was submitted or finished since start_ready
  double now_ = 0;
};

}  // namespace sluice::policy::detail
