// What the tests of asynchronous lanes share: a device whose streams work later, and a fixture that builds
// and runs schedules on it.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include <gtest/gtest.h>

#include "offload/executor/executor.h"
#include "tests/fakes/fake_async_device.h"
#include "tests/fakes/fake_io.h"

namespace sluice::offload::executor_test {

using kernels::fakes::FakeAsyncDevice;
using kernels::fakes::FakeAsyncStream;
using kernels::fakes::FakeDeviceScript;
using policy::kNumLanes;
using policy::lane_index;
using policy::LaneKind;
using policy::Schedule;
using policy::Step;
using policy::StepKind;

constexpr std::chrono::milliseconds kSlow{30};

inline std::unique_ptr<BlockIo> idle_io() {
  return std::make_unique<fakes::FakeIo>(BlockIoOptions{}, std::make_shared<fakes::FakeDisk>(),
                                         fakes::FakeScript{});
}

/// A door that work waits at.
class Gate {
 public:
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    opened_.notify_all();
  }
  void pass() {
    std::unique_lock lock(mutex_);
    opened_.wait(lock, [&] { return open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable opened_;
  bool open_ = false;
};

/// Four lanes of a device, the others threads, as in a run on a GPU. A step does what the test says, on its
/// stream if it has one.
class DeviceRunner : public StepRunner {
 public:
  explicit DeviceRunner(const FakeDeviceScript& script = {},
                        std::initializer_list<LaneKind> lanes = {LaneKind::kH2d, LaneKind::kH2dUrgent,
                                                                 LaneKind::kD2h, LaneKind::kD2hUrgent,
                                                                 LaneKind::kGpu})
      : device(script) {
    for (const LaneKind lane : lanes) streams[lane_index(lane)] = device.make_fake_stream();
  }
  kernels::Stream* stream(LaneKind lane) override { return streams[lane_index(lane)].get(); }
  std::int64_t run(const Step& step) override {
    ++runs;
    const auto work = [this, unit = step.unit] {
      if (does) does(unit);
      const std::lock_guard lock(mutex_);
      order_.push_back(unit);
    };
    FakeAsyncStream* stream = streams[lane_index(step.lane)].get();
    if (stream == nullptr) {
      work();
    } else {
      stream->enqueue(work);
      auto& copied = copied_[lane_index(step.lane)];
      stream->copy(&copied[0], &copied[1], 1);  // where a test lets it fail
    }
    return 10;
  }
  void io_requests(const Step& step, std::vector<IoRequest>& /*out*/) override {
    const std::lock_guard lock(mutex_);
    order_.push_back(step.unit);
  }
  FakeAsyncStream& at(LaneKind lane) { return *streams[lane_index(lane)]; }
  std::vector<int> order() const {
    const std::lock_guard lock(mutex_);
    return order_;
  }

  std::function<void(int unit)> does;  // on the thread that does the work
  std::atomic<int> runs{0};            // steps handed over

 private:
  mutable std::mutex mutex_;
  std::vector<int> order_;
  std::array<std::array<std::byte, 2>, kNumLanes> copied_{};

 public:
  FakeAsyncDevice device;
  std::array<std::unique_ptr<FakeAsyncStream>, kNumLanes> streams;  // last: a broken device's still work
};

class ExecutorAsyncTest : public ::testing::Test {
 protected:
  Step& add(LaneKind lane, StepKind kind, std::initializer_list<policy::Wait> waits = {}) {
    Step step;
    step.kind = kind;
    step.lane = lane;
    step.pass = 2;
    step.unit = static_cast<std::int16_t>(schedule.steps.size());
    step.seq = ++seq_[lane_index(lane)];
    for (const policy::Wait& wait : waits) step.waits[step.num_waits++] = wait;
    schedule.lane_steps[lane_index(lane)].push_back(static_cast<std::int32_t>(schedule.steps.size()));
    schedule.last_seq[lane_index(lane)] = step.seq;
    return schedule.steps.emplace_back(step);
  }
  /// Runs the schedule to its end, and gives its times.
  std::vector<policy::StepTime> run(DeviceRunner& runner, const StepHook& hook = {}) {
    Executor executor(runner, idle_io(), idle_io(), hook);
    return run(executor);
  }
  std::vector<policy::StepTime> run(Executor& executor) {
    std::vector<policy::StepTime> times(schedule.steps.size());
    executor.submit(schedule, &times);
    executor.wait_all(schedule.last_seq);
    status = executor.status();
    counters = executor.counters();
    return times;
  }

  void reset() {
    schedule = {};
    seq_ = {};
  }

  Schedule schedule;
  Status status;
  std::array<LaneCounters, kNumLanes> counters{};

 private:
  std::array<std::int64_t, kNumLanes> seq_{};
};

}  // namespace sluice::offload::executor_test
