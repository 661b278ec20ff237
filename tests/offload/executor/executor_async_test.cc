// Lanes whose streams work later, as a CUDA device's do: their order among each other and with lanes that are
// threads, their failures and their times.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "offload/executor/executor.h"
#include "tests/fakes/fake_async_device.h"
#include "tests/fakes/fake_io.h"

namespace sluice::offload {
namespace {

using kernels::fakes::FakeAsyncDevice;
using kernels::fakes::FakeAsyncStream;
using kernels::fakes::FakeDeviceScript;
using kernels::fakes::Fault;
using policy::kNumLanes;
using policy::lane_index;
using policy::LaneKind;
using policy::Schedule;
using policy::Step;
using policy::StepKind;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::chrono::milliseconds kSlow{30};

std::unique_ptr<BlockIo> idle_io() {
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

// ---- Order.

TEST_F(ExecutorAsyncTest, OrdersAsynchronousLanesOnTheDeviceWithoutWaitingForThem) {
  DeviceRunner runner;
  Gate gate;
  runner.does = [&](int unit) {
    if (unit == 0) gate.pass();
  };
  add(LaneKind::kH2d, StepKind::kLoadWeights);                           // 0, until all are enqueued
  add(LaneKind::kGpu, StepKind::kPre, {{LaneKind::kH2d, 1}});            // 1
  add(LaneKind::kGpu, StepKind::kPost);                                  // 2
  add(LaneKind::kD2hUrgent, StepKind::kSendQkv, {{LaneKind::kGpu, 2}});  // 3
  add(LaneKind::kH2d, StepKind::kLoadWeights, {{LaneKind::kGpu, 1}});    // 4
  add(LaneKind::kD2h, StepKind::kStoreKv, {{LaneKind::kD2hUrgent, 1}});  // 5
  Executor executor(runner, idle_io(), idle_io());
  executor.submit(schedule);
  while (runner.runs.load() < 6) std::this_thread::yield();
  EXPECT_TRUE(runner.order().empty());
  gate.open();
  executor.wait_all(schedule.last_seq);
  EXPECT_TRUE(executor.status().ok()) << executor.status().message();
  const std::vector<int> order = runner.order();
  ASSERT_EQ(order.size(), 6U);
  const auto place = [&](int unit) { return std::find(order.begin(), order.end(), unit) - order.begin(); };
  EXPECT_EQ(place(0), 0);
  EXPECT_EQ(place(1), 1);
  EXPECT_LT(place(2), place(3));
  EXPECT_LT(place(1), place(4));
  EXPECT_LT(place(3), place(5));
}

TEST_F(ExecutorAsyncTest, ThreadLanesAndDiskLanesWaitForTheDevice) {
  DeviceRunner runner;
  runner.does = [](int unit) {
    if (unit == 0) std::this_thread::sleep_for(kSlow);
  };
  add(LaneKind::kD2hUrgent, StepKind::kSendQkv);                                                    // 0, slow
  add(LaneKind::kCpu, StepKind::kAttend, {{LaneKind::kD2hUrgent, 1}});                              // 1
  add(LaneKind::kDiskWrite, StepKind::kWriteKv, {{LaneKind::kD2hUrgent, 1}, {LaneKind::kCpu, 1}});  // 2
  const auto times = run(runner);
  EXPECT_TRUE(status.ok());
  EXPECT_THAT(runner.order(), ElementsAre(0, 1, 2));
  EXPECT_LE(times[0].end_sec, times[1].start_sec);
  EXPECT_GE(counters[lane_index(LaneKind::kCpu)].stalled_sec, 0.02);
}

TEST_F(ExecutorAsyncTest, TheDeviceWaitsForThreadLanesAndDiskLanes) {
  DeviceRunner runner;
  runner.does = [](int unit) {
    if (unit == 0) std::this_thread::sleep_for(kSlow);
  };
  add(LaneKind::kCpu, StepKind::kAttend);                                   // 0, slow
  add(LaneKind::kDiskRead, StepKind::kReadWeights, {{LaneKind::kCpu, 1}});  // 1
  add(LaneKind::kH2dUrgent, StepKind::kSendAttention, {{LaneKind::kCpu, 1}, {LaneKind::kDiskRead, 1}});  // 2
  add(LaneKind::kGpu, StepKind::kPost, {{LaneKind::kH2dUrgent, 1}});                                     // 3
  const auto times = run(runner);
  EXPECT_TRUE(status.ok());
  EXPECT_THAT(runner.order(), ElementsAre(0, 1, 2, 3));
  EXPECT_LE(times[0].end_sec, times[2].start_sec);
  EXPECT_LE(times[2].end_sec, times[3].start_sec);
}

TEST_F(ExecutorAsyncTest, EnqueuesAtMostSoManyStepsAhead) {
  DeviceRunner runner;
  Gate gate;
  runner.does = [&](int unit) {
    if (unit == 0) gate.pass();
  };
  constexpr int kSteps = 3 * kernels::Stream::kMaxStepsAhead + 5;
  for (int i = 0; i < kSteps; ++i) add(LaneKind::kGpu, StepKind::kPre);
  add(LaneKind::kD2hUrgent, StepKind::kFetchResults, {{LaneKind::kGpu, kSteps}});
  Executor executor(runner, idle_io(), idle_io());
  executor.submit(schedule);
  while (runner.runs.load() < kernels::Stream::kMaxStepsAhead) std::this_thread::yield();
  std::this_thread::sleep_for(kSlow);
  EXPECT_EQ(runner.runs.load(), kernels::Stream::kMaxStepsAhead);
  gate.open();
  executor.wait_all(schedule.last_seq);
  EXPECT_TRUE(executor.status().ok()) << executor.status().message();
  const std::vector<int> order = runner.order();
  EXPECT_EQ(order.size(), schedule.steps.size());
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
}

TEST_F(ExecutorAsyncTest, WaitsMayBeSwitchedBetweenSleepingAndSpinning) {
  FakeDeviceScript script;
  script.jitter = std::chrono::microseconds(300);
  DeviceRunner runner(script);
  Executor executor(runner, idle_io(), idle_io());
  for (int round = 0; round < 30; ++round) {
    executor.set_wait_mode(round % 3 == 0 ? WaitMode::kSpin : WaitMode::kSleep);
    schedule.clear();
    const std::int64_t before = round;
    add(LaneKind::kH2dUrgent, StepKind::kLoadInputs, {{LaneKind::kD2hUrgent, before}});
    add(LaneKind::kGpu, StepKind::kHead, {{LaneKind::kH2dUrgent, before + 1}});
    add(LaneKind::kD2hUrgent, StepKind::kFetchResults, {{LaneKind::kGpu, before + 1}});
    executor.submit(schedule);
    std::jthread switcher;
    if (round % 3 == 2) switcher = std::jthread([&] { executor.set_wait_mode(WaitMode::kSpin); });
    executor.wait(LaneKind::kD2hUrgent, before + 1);
    executor.set_wait_mode(WaitMode::kSleep);
    executor.wait_all(schedule.last_seq);
  }
  EXPECT_TRUE(executor.status().ok()) << executor.status().message();
  EXPECT_EQ(runner.order().size(), 90U);
}

// ---- Times and counters.

TEST_F(ExecutorAsyncTest, TimesLieBetweenSubmissionAndTheEndThatWasSeenWhateverTheDevicesClockSays) {
  for (const double skew : {0.0, -5.0, 5.0, 0.002, -0.002}) {
    FakeDeviceScript script;
    script.jitter = std::chrono::microseconds(500);
    script.clock_skew_sec = skew;
    DeviceRunner runner(script);
    reset();
    for (std::int64_t i = 1; i <= 40; ++i) {
      add(LaneKind::kH2d, StepKind::kLoadWeights, {{LaneKind::kGpu, i - 1}});
      add(LaneKind::kGpu, StepKind::kPre, {{LaneKind::kH2d, i}});
    }
    Executor executor(runner, idle_io(), idle_io());
    const double submitted = executor.now_sec();
    const auto times = run(executor);
    const double seen = executor.now_sec();
    for (const auto& lane : schedule.lane_steps) {
      double last = submitted;
      for (const std::int32_t index : lane) {
        const policy::StepTime& time = times[static_cast<std::size_t>(index)];
        EXPECT_LE(last, time.start_sec) << "skew " << skew << " step " << index;
        EXPECT_LE(time.start_sec, time.end_sec) << "skew " << skew << " step " << index;
        EXPECT_LE(time.end_sec, seen) << "skew " << skew << " step " << index;
        last = time.end_sec;
      }
    }
    if (skew != 0) continue;
    for (std::size_t i = 1; i < times.size(); ++i) EXPECT_LE(times[i - 1].end_sec, times[i].start_sec);
  }
}

TEST_F(ExecutorAsyncTest, CountsStepsBytesAndWhereTheTimeWent) {
  DeviceRunner runner;
  runner.does = [](int unit) {
    if (unit < 2) std::this_thread::sleep_for(kSlow);
  };
  add(LaneKind::kH2d, StepKind::kLoadWeights);                 // 0, slow
  add(LaneKind::kGpu, StepKind::kPre, {{LaneKind::kH2d, 1}});  // 1, slow
  add(LaneKind::kGpu, StepKind::kPost);                        // 2
  run(runner);
  const LaneCounters& h2d = counters[lane_index(LaneKind::kH2d)];
  const LaneCounters& gpu = counters[lane_index(LaneKind::kGpu)];
  EXPECT_EQ(h2d.steps, 1);
  EXPECT_EQ(h2d.bytes, 10);
  EXPECT_EQ(gpu.steps, 2);
  EXPECT_EQ(gpu.bytes, 20);
  EXPECT_GE(h2d.busy_sec, 0.02);
  EXPECT_GE(gpu.stalled_sec, 0.02);
  EXPECT_GE(gpu.busy_sec, 0.02);
}

// ---- Failures.

TEST_F(ExecutorAsyncTest, AFailureAtEnqueueNamesTheStepAndSkipsTheRest) {
  DeviceRunner runner;
  runner.at(LaneKind::kGpu).fail_enqueue(2);
  add(LaneKind::kH2d, StepKind::kLoadWeights);                     // 0
  add(LaneKind::kGpu, StepKind::kPre, {{LaneKind::kH2d, 1}});      // 1
  add(LaneKind::kGpu, StepKind::kAttend);                          // 2, fails
  add(LaneKind::kGpu, StepKind::kPost);                            // 3
  add(LaneKind::kD2h, StepKind::kStoreKv, {{LaneKind::kGpu, 2}});  // 4
  add(LaneKind::kCpu, StepKind::kAttend, {{LaneKind::kD2h, 1}});   // 5
  add(LaneKind::kH2d, StepKind::kLoadKv, {{LaneKind::kCpu, 1}});   // 6
  run(runner);
  EXPECT_EQ(status.code(), Code::kDevice);
  EXPECT_THAT(status.message(),
              AllOf(HasSubstr("attend of unit 2 (layer 1, pass 2)"), HasSubstr("refused; see the driver")));
  EXPECT_EQ(runner.runs.load(), 3) << "what comes later is skipped";
  EXPECT_EQ(counters[lane_index(LaneKind::kGpu)].steps, 3) << "and counted as finished";
}

// A step that fails half-way has enqueued work that uses memory: it is awaited too.
TEST_F(ExecutorAsyncTest, WhatAStepEnqueuedBeforeItFailedIsDoneWhenItCountsAsFinished) {
  DeviceRunner runner;
  runner.at(LaneKind::kGpu).fail_enqueue(1);
  runner.does = [](int) { std::this_thread::sleep_for(kSlow); };
  add(LaneKind::kGpu, StepKind::kPre);
  run(runner);
  EXPECT_EQ(status.code(), Code::kDevice);
  EXPECT_THAT(runner.order(), ElementsAre(0));
}

TEST_F(ExecutorAsyncTest, AFailureOnTheDeviceNamesTheStepThatWasAwaited) {
  for (const Fault fault : {Fault::kOnce, Fault::kSticky}) {
    reset();
    DeviceRunner runner;
    runner.at(LaneKind::kGpu).fail_step(2, fault);
    Gate gate, begun;
    runner.does = [&](int unit) {
      if (unit == 1) begun.pass();  // 0 has been seen to end
      if (unit != 2) return;
      begun.open();
      gate.pass();
    };
    add(LaneKind::kGpu, StepKind::kPre);                                         // 0
    add(LaneKind::kGpu, StepKind::kPost);                                        // 1, fails
    add(LaneKind::kCpu, StepKind::kAttend, {{LaneKind::kGpu, 1}});               // 2
    add(LaneKind::kCpu, StepKind::kAttend, {{LaneKind::kGpu, 2}});               // 3
    add(LaneKind::kH2dUrgent, StepKind::kSendAttention, {{LaneKind::kCpu, 2}});  // 4
    add(LaneKind::kGpu, StepKind::kPost, {{LaneKind::kH2dUrgent, 1}});           // 5
    add(LaneKind::kDiskRead, StepKind::kReadKv, {{LaneKind::kGpu, 3}});          // 6
    {
      Executor executor(runner, idle_io(), idle_io());
      executor.submit(schedule);
      while (executor.status().ok()) std::this_thread::yield();
      gate.open();
      executor.wait_all(schedule.last_seq);  // nobody hangs
      EXPECT_TRUE(executor.skipping());
      status = executor.status();
    }
    EXPECT_EQ(status.code(), Code::kDevice);
    EXPECT_THAT(status.message(), HasSubstr("post of unit 1 (layer 0, pass 2)"));
    EXPECT_EQ(runner.runs.load(), 3) << "0, 1 and 2";
  }
}

TEST_F(ExecutorAsyncTest, AStickyFailureEndsARunOfAnyLengthOnAnyLane) {
  for (const LaneKind broken : {LaneKind::kH2d, LaneKind::kGpu, LaneKind::kD2hUrgent}) {
    for (const WaitMode mode : {WaitMode::kSleep, WaitMode::kSpin}) {
      reset();
      FakeDeviceScript script;
      script.jitter = std::chrono::microseconds(200);
      DeviceRunner runner(script);
      runner.at(broken).fail_step(90, Fault::kSticky);
      for (std::int64_t i = 1; i <= 200; ++i) {
        add(LaneKind::kH2d, StepKind::kLoadWeights, {{LaneKind::kGpu, i - 2}});
        add(LaneKind::kGpu, StepKind::kPre, {{LaneKind::kH2d, i}});
        add(LaneKind::kD2hUrgent, StepKind::kSendQkv, {{LaneKind::kGpu, i}});
        if (i % 10 == 0) add(LaneKind::kCpu, StepKind::kAttend, {{LaneKind::kD2hUrgent, i}});
      }
      Executor executor(runner, idle_io(), idle_io());
      executor.set_wait_mode(mode);
      run(executor);
      EXPECT_EQ(status.code(), Code::kDevice);
      EXPECT_THAT(status.message(),
                  AllOf(HasSubstr(" of unit "), HasSubstr("pass 2"), HasSubstr("illegal memory access")));
      EXPECT_LT(runner.runs.load(), static_cast<int>(schedule.steps.size()));
      for (std::size_t i = 0; i < kNumLanes; ++i)
        EXPECT_EQ(counters[i].steps, static_cast<std::int64_t>(schedule.lane_steps[i].size()));
    }
  }
}

// The call that finds the device broken may be of any step; the message names what the device was at.
TEST_F(ExecutorAsyncTest, AFailureThatShowsElsewhereNamesTheUnfinishedSteps) {
  DeviceRunner runner;
  Gate gate;
  runner.does = [&](int unit) {
    if (unit == 0) gate.pass();
  };
  add(LaneKind::kGpu, StepKind::kAttend);  // 0, under way
  add(LaneKind::kCpu, StepKind::kAttend);  // 1, until the step before is awaited
  runner.at(LaneKind::kH2d).fail_enqueue(1);
  add(LaneKind::kH2d, StepKind::kLoadWeights, {{LaneKind::kCpu, 1}});  // 2, fails
  const StepHook hook = [&](const Step& step) {
    if (step.unit == 1) std::this_thread::sleep_for(3 * kSlow);
  };
  Executor executor(runner, idle_io(), idle_io(), hook);
  executor.submit(schedule);
  while (executor.status().ok()) std::this_thread::yield();
  gate.open();
  executor.wait_all(schedule.last_seq);
  EXPECT_THAT(executor.status().message(),
              AllOf(HasSubstr("load_weights of unit 2 (pass 2), with these unfinished on the device"),
                    HasSubstr("gpu attend of unit 0")));
}

TEST_F(ExecutorAsyncTest, AHookThatThrowsEndsTheRun) {
  DeviceRunner runner;
  for (int i = 0; i < 20; ++i) add(LaneKind::kGpu, StepKind::kPost);
  run(runner, [](const Step& step) {
    if (step.unit == 7) throw Error(Code::kDevice, "the bus fell off", "fix the bus");
  });
  EXPECT_EQ(status.code(), Code::kDevice);
  EXPECT_THAT(status.message(), AllOf(HasSubstr("post of unit 7 (layer 6, pass 2)"),
                                      HasSubstr("the bus fell off; fix the bus")));
  EXPECT_EQ(runner.runs.load(), 7);
}

TEST_F(ExecutorAsyncTest, ADeviceLostBeforeTheFirstStepIsReported) {
  DeviceRunner runner;
  runner.at(LaneKind::kD2h).fail_bind();
  add(LaneKind::kD2h, StepKind::kStoreKv);
  add(LaneKind::kGpu, StepKind::kPre, {{LaneKind::kD2h, 1}});
  Executor executor(runner, idle_io(), idle_io());
  while (executor.status().ok()) std::this_thread::yield();
  run(executor);
  EXPECT_EQ(status.code(), Code::kDevice);
  EXPECT_THAT(status.message(), AllOf(HasSubstr("start of the d2h lane"), HasSubstr("lost")));
  EXPECT_EQ(runner.runs.load(), 0);
}

// ---- Ends.

TEST_F(ExecutorAsyncTest, SkippingInMidRunFinishesWhatIsEnqueuedAndNothingElse) {
  DeviceRunner runner;
  Gate gate;
  runner.does = [&](int unit) {
    if (unit == 0) gate.pass();
  };
  for (int i = 0; i < 600; ++i) add(LaneKind::kGpu, StepKind::kPre);
  add(LaneKind::kCpu, StepKind::kAttend, {{LaneKind::kGpu, 600}});
  Executor executor(runner, idle_io(), idle_io());
  executor.submit(schedule);
  while (runner.runs.load() < 10) std::this_thread::yield();
  executor.skip_rest();
  gate.open();
  executor.wait_all(schedule.last_seq);
  EXPECT_TRUE(executor.status().ok()) << executor.status().message();
  EXPECT_LE(runner.runs.load(), kernels::Stream::kMaxStepsAhead + 1);
  EXPECT_EQ(runner.order().size(), static_cast<std::size_t>(runner.runs.load()));
  EXPECT_EQ(executor.counters()[lane_index(LaneKind::kGpu)].steps, 600);
}

TEST_F(ExecutorAsyncTest, TheDestructorJoinsWithStepsUnderWayAndWaiting) {
  DeviceRunner runner;
  runner.does = [](int unit) {
    if (unit == 0) std::this_thread::sleep_for(kSlow);
  };
  add(LaneKind::kH2d, StepKind::kLoadWeights);
  for (int i = 0; i < 400; ++i) add(LaneKind::kGpu, StepKind::kPre, {{LaneKind::kH2d, 1}});
  add(LaneKind::kCpu, StepKind::kAttend, {{LaneKind::kGpu, 400}});
  add(LaneKind::kH2d, StepKind::kLoadWeights, {{LaneKind::kCpu, 1}});
  {
    Executor executor(runner, idle_io(), idle_io());
    executor.submit(schedule);
  }
  EXPECT_LE(runner.runs.load(), kernels::Stream::kMaxStepsAhead + 1);
}

// As many schedules as a lane can have waiting, while it is at the one before.
TEST_F(ExecutorAsyncTest, TheDestructorJoinsWithEverySubmissionWaiting) {
  for (const bool asynchronous : {true, false}) {
    reset();
    DeviceRunner runner;
    const LaneKind lane = asynchronous ? LaneKind::kGpu : LaneKind::kCpu;
    Gate gate;
    runner.does = [&](int unit) {
      if (unit == 0) gate.pass();
    };
    std::vector<Schedule> schedules;
    schedules.reserve(9);
    const auto submit_next = [&](Executor& executor, std::int64_t steps, bool disk) {
      schedule.clear();
      for (std::int64_t i = 0; i < steps; ++i) add(lane, StepKind::kAttend);
      if (disk) add(LaneKind::kDiskRead, StepKind::kReadKv, {{lane, schedule.last_seq[lane_index(lane)]}});
      executor.submit(schedules.emplace_back(schedule));
    };
    std::jthread opener;  // joined after the executor is gone
    {
      Executor executor(runner, idle_io(), idle_io());
      submit_next(executor, kernels::Stream::kMaxStepsAhead + 1, true);  // more than can be enqueued
      while (runner.runs.load() < (asynchronous ? kernels::Stream::kMaxStepsAhead : 1))
        std::this_thread::yield();
      for (int i = 0; i < 8; ++i) submit_next(executor, 1, i == 7);
      opener = std::jthread([&] {
        while (!executor.skipping()) std::this_thread::yield();
        gate.open();
      });
    }
    EXPECT_LE(runner.runs.load(), kernels::Stream::kMaxStepsAhead);
  }
}

}  // namespace
}  // namespace sluice::offload
