// Lanes whose streams work later, as a CUDA device's do: their order among each other and with lanes that are
// threads, and their times.
#include <algorithm>
#include <chrono>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/offload/executor/executor_test_support.h"

namespace sluice::offload::executor_test {
namespace {

using ::testing::ElementsAre;

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

TEST_F(ExecutorAsyncTest, ALaterScheduleMayWaitForAStepThatWasJoined) {
  DeviceRunner runner;
  Gate gate;
  runner.does = [&](int unit) {
    if (unit == 0) gate.pass();
  };
  constexpr int kSteps = 150;  // more than one group
  for (int i = 0; i < kSteps; ++i) add(LaneKind::kGpu, StepKind::kPre).joins_next = i + 1 < kSteps;
  const Schedule first = schedule;
  schedule.clear();
  add(LaneKind::kD2h, StepKind::kStoreKv, {{LaneKind::kGpu, 3}}).unit = kSteps;
  Executor executor(runner, idle_io(), idle_io());
  executor.submit(first);
  executor.submit(schedule);
  while (runner.runs.load() < kSteps + 1) std::this_thread::yield();
  EXPECT_TRUE(runner.order().empty());
  gate.open();
  executor.wait_all(schedule.last_seq);
  EXPECT_TRUE(executor.status().ok()) << executor.status().message();
  const std::vector<int> order = runner.order();
  ASSERT_EQ(order.size(), static_cast<std::size_t>(kSteps) + 1);
  EXPECT_GT(std::find(order.begin(), order.end(), kSteps) - order.begin(), 2);
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

}  // namespace
}  // namespace sluice::offload::executor_test
