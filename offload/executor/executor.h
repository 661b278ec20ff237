// Runs schedules: one thread per lane executes its steps in order, each after the steps it waits for; a disk
// lane keeps several in flight and finishes them in order. A lane whose stream is asynchronous (a CUDA
// device) enqueues its steps ahead: it orders them behind other streams' steps on the device, and waits
// itself only for lanes that are threads; a second thread sees its steps finish. Nothing is allocated while
// it runs, and no step waits for the whole device.
//
// A step that fails, or a request to stop, turns the remaining steps into no-ops: they are counted as
// finished, so nobody hangs, and the first failure is reported, with the step, its unit, layer and pass. An
// asynchronous lane may come to know of another step's failure, so a device's failure names the steps that
// were unfinished there. Steps that join (policy/step.h) go to the stream as one and finish together, unless
// their times are asked for. `submit` and the waits belong to one thread.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/mutex.h"
#include "kernels/device/cpu/thread_starter.h"
#include "kernels/device/stream.h"
#include "offload/io/block_io.h"
#include "policy/check_schedule.h"
#include "policy/step.h"

namespace sluice::offload {

/// What steps do. Called on the lane's thread.
class StepRunner {
 public:
  virtual ~StepRunner() = default;
  /// Where the steps of a lane are enqueued; null for a lane whose steps are done when `run` returns. The
  /// same at every call.
  virtual kernels::Stream* stream(policy::LaneKind /*lane*/) { return nullptr; }
  /// Executes a step of any lane but the disks'. Returns the bytes that it moved (0 for computations).
  virtual std::int64_t run(const policy::Step& step) = 0;
  /// The requests of a disk step; `out` is empty and keeps its capacity.
  virtual void io_requests(const policy::Step& step, std::vector<IoRequest>& out) = 0;
};

/// Counters of one lane.
struct LaneCounters {
  std::int64_t steps = 0, bytes = 0;
  double busy_sec = 0;     ///< executing (disk lanes: something in flight)
  double stalled_sec = 0;  ///< a step was there, but waited for other lanes
};

/// Called before each step on its lane's thread, with the step; tests put delays here.
using StepHook = std::function<void(const policy::Step&)>;

/// How threads wait for what ends a pass or starts the next. A sleeper wakes in tens of microseconds, which
/// is a tenth of a decode pass whose weights and KV are on the GPU; a spinner occupies a core.
enum class WaitMode : std::uint8_t { kSleep, kSpin };

class Executor {
 public:
  /// Starts the lanes. The runner, and the hook's captures, outlive the executor. Throws Error{kOutOfMemory}
  /// if one of the threads cannot be started; the others have ended then.
  Executor(StepRunner& runner, std::unique_ptr<BlockIo> disk_read, std::unique_ptr<BlockIo> disk_write,
           StepHook hook = {}, const kernels::ThreadMaker& make_thread = {});
  /// Skips what has not run, drains what is in flight, and joins the lanes.
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  /// Hands a schedule to the lanes; it, and `times` if given (one entry a step), stay untouched until
  /// `wait_all` has returned for it.
  void submit(const policy::Schedule& schedule, std::vector<policy::StepTime>* times = nullptr);
  /// For a run that begins, and kSleep when it is over. Only asynchronous lanes spin. Thread-safe.
  void set_wait_mode(WaitMode mode) { spin_.store(mode == WaitMode::kSpin); }
  /// Blocks until `lane` has finished its first `count` steps.
  void wait(policy::LaneKind lane, std::int64_t count) const;
  /// Blocks until every lane has finished its steps up to `last_seq`.
  void wait_all(const std::array<std::int64_t, policy::kNumLanes>& last_seq) const;

  /// From now on steps are skipped. Thread-safe, returns at once.
  void skip_rest();
  bool skipping() const { return skip_.load(); }
  /// The first failure, or ok. Thread-safe.
  Status status() const;

  std::array<LaneCounters, policy::kNumLanes> counters() const;
  double now_sec() const;  ///< clock of the step times, from construction
  /// When the first `post` step of the first layer ended, on std::chrono::steady_clock; 0 before.
  double first_layer_end_sec() const { return first_layer_end_sec_.load(); }

 private:
  struct Submitted {
    const policy::Schedule* schedule = nullptr;
    std::vector<policy::StepTime>* times = nullptr;
  };
  struct Lane;

  void start_lanes(const kernels::ThreadMaker& make_thread);
  /// Joins those that were started.
  void stop_lanes();
  void lane_loop(Lane& lane);
  static std::size_t next_group(const Lane& lane);
  void enqueue_group(Lane& lane, std::size_t size);
  void enqueue_loop(Lane& lane);
  void completion_loop(Lane& lane);
  kernels::StepSpan await_group(Lane& lane, std::int64_t first, double last_end);
  double end_of_waits(const policy::Step& step) const;
  void enqueue_waits(Lane& lane, const policy::Step& step);
  static bool end_failed_step(Lane& lane, const policy::Step& step) noexcept;
  void disk_loop(Lane& lane);
  bool next_step(Lane& lane, bool block);
  bool ready(const policy::Step& step) const;
  void wait_for(const policy::Step& step) const;
  void finish_step(Lane& lane, const policy::Step& step, std::size_t index, const Submitted& from,
                   double start_sec, double end_sec);
  void fail(const std::string& where, const Status& status);
  /// The step, or one of the `group` steps that begin with it.
  void fail(const Lane& lane, const policy::Step& step, const Status& status, std::size_t group = 1);
  /// For the calling thread. A failure ends the run.
  void bind_thread(Lane& lane);

  StepRunner& runner_;
  const StepHook hook_;
  std::array<std::atomic<std::int64_t>, policy::kNumLanes> done_{};
  std::array<std::atomic<std::int64_t>, policy::kNumLanes> enqueued_{};  // asynchronous lanes
  std::atomic<bool> skip_{false};
  std::atomic<bool> spin_{false};
  std::atomic<double> first_layer_end_sec_{0};
  std::array<std::unique_ptr<Lane>, policy::kNumLanes> lanes_;
  mutable Mutex status_mutex_;
  Status status_ SLUICE_GUARDED_BY(status_mutex_);
  double started_sec_ = 0;
};

}  // namespace sluice::offload
