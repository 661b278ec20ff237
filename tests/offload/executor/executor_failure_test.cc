// How runs on lanes whose streams work later end: failures of the device, skipping and destruction.
#include <thread>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/fakes/thread_limit.h"
#include "tests/offload/executor/executor_test_support.h"
#include "tests/support/error_of.h"

namespace sluice::offload::executor_test {
namespace {

using kernels::fakes::Fault;
using kernels::fakes::ThreadLimit;
using sluice::testing::error_of;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

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

// What goes to the stream as one step fails as one.
TEST_F(ExecutorAsyncTest, AFailureOfJoinedStepsNamesThemAll) {
  for (const bool timed : {false, true}) {
    reset();
    DeviceRunner runner;
    runner.at(LaneKind::kGpu).fail_step(4, Fault::kOnce);
    add(LaneKind::kGpu, StepKind::kEmbed);                     // 0
    add(LaneKind::kGpu, StepKind::kPre).joins_next = true;     // 1
    add(LaneKind::kGpu, StepKind::kAttend).joins_next = true;  // 2
    add(LaneKind::kGpu, StepKind::kPost);                      // 3, fails
    Executor executor(runner, idle_io(), idle_io());
    std::vector<policy::StepTime> times(schedule.steps.size());
    executor.submit(schedule, timed ? &times : nullptr);
    executor.wait_all(schedule.last_seq);
    EXPECT_THAT(executor.status().message(),
                timed ? HasSubstr("post of unit 3 (layer 2, pass 2):")
                      : HasSubstr("pre of unit 1 (layer 0, pass 2) or one of the next 2 steps:"));
    EXPECT_EQ(executor.counters()[lane_index(LaneKind::kGpu)].steps, 4);
  }
}

TEST_F(ExecutorAsyncTest, AFailureAtEnqueueAmongJoinedStepsAwaitsThoseBefore) {
  DeviceRunner runner;
  runner.at(LaneKind::kGpu).fail_enqueue(3);  // the number of the group
  runner.does = [](int) { std::this_thread::sleep_for(kSlow); };
  add(LaneKind::kGpu, StepKind::kPre).joins_next = true;     // 0, fails
  add(LaneKind::kGpu, StepKind::kAttend).joins_next = true;  // 1
  add(LaneKind::kGpu, StepKind::kPost);                      // 2
  Executor executor(runner, idle_io(), idle_io());
  executor.submit(schedule);
  executor.wait_all(schedule.last_seq);
  EXPECT_THAT(executor.status().message(), HasSubstr("pre of unit 0 "));
  EXPECT_THAT(runner.order(), ElementsAre(0));
  EXPECT_EQ(runner.runs.load(), 1);
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

// Whichever it is, the threads before it end.
TEST_F(ExecutorAsyncTest, AThreadThatDoesNotStartIsReportedAndLeavesNoneRunning) {
  DeviceRunner with_streams;
  DeviceRunner without_streams({}, {});
  for (DeviceRunner* runner : {&with_streams, &without_streams}) {
    const int total = static_cast<int>(kNumLanes) + (runner == &with_streams ? 5 : 0);
    for (int limit = 0; limit < total; ++limit) {
      ThreadLimit threads(limit);
      const Error e =
          error_of([&] { Executor(*runner, idle_io(), idle_io(), /*hook=*/{}, threads.maker()); });
      EXPECT_EQ(e.code(), Code::kOutOfMemory);
      EXPECT_THAT(
          e.what(),
          AllOf(HasSubstr(fmt::format("thread {} of {} of the executor did not start: ", limit + 1, total)),
                HasSubstr("ulimit -u")));
      EXPECT_EQ(threads.running(), 0);
    }
    ThreadLimit enough(total);
    { const Executor executor(*runner, idle_io(), idle_io(), /*hook=*/{}, enough.maker()); }
    EXPECT_EQ(enough.running(), 0);
  }
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
}  // namespace sluice::offload::executor_test
