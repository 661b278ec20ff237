#include "offload/executor/executor.h"

#include <chrono>
#include <mutex>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/fakes/fake_io.h"

namespace sluice::offload {
namespace {

using policy::kNumLanes;
using policy::lane_index;
using policy::LaneKind;
using policy::Schedule;
using policy::Step;
using policy::StepKind;

/// Builds schedules step by step.
class Script {
 public:
  Step& add(LaneKind lane, StepKind kind, std::initializer_list<policy::Wait> waits = {}) {
    Step step;
    step.kind = kind;
    step.lane = lane;
    step.unit = static_cast<std::int16_t>(schedule.steps.size());
    step.seq = ++seq_[lane_index(lane)];
    for (const policy::Wait& wait : waits) step.waits[step.num_waits++] = wait;
    schedule.lane_steps[lane_index(lane)].push_back(static_cast<std::int32_t>(schedule.steps.size()));
    schedule.last_seq[lane_index(lane)] = step.seq;
    return schedule.steps.emplace_back(step);
  }
  void next() { schedule.clear(); }

  Schedule schedule;

 private:
  std::array<std::int64_t, kNumLanes> seq_{};
};

/// Records what runs, and does what the test says.
class RecordingRunner : public StepRunner {
 public:
  std::int64_t run(const Step& step) override {
    if (step.unit == slow_unit) std::this_thread::sleep_for(std::chrono::milliseconds(30));
    if (step.unit == failing_unit) throw Error(Code::kDevice, "broken", "mend it");
    const std::lock_guard lock(mutex_);
    order.push_back(step.unit);
    return 10;
  }
  void io_requests(const Step& step, std::vector<IoRequest>& out) override {
    for (std::int64_t i = 0; i < requests_per_step; ++i) {
      out.push_back({.op = step.lane == LaneKind::kDiskRead ? IoOp::kRead : IoOp::kWrite,
                     .offset = (step.unit * requests_per_step + i) * 4096,
                     .data = buffer.data() + i * 4096,
                     .bytes = 4096});
    }
  }

  int slow_unit = -1, failing_unit = -1;
  std::int64_t requests_per_step = 1;
  std::vector<int> order;
  struct Page {
    alignas(4096) std::byte bytes[4096 * 256];
  };
  std::unique_ptr<Page> page = std::make_unique<Page>();
  std::span<std::byte> buffer{page->bytes};

 private:
  std::mutex mutex_;
};

class ExecutorTest : public ::testing::Test {
 protected:
  std::unique_ptr<BlockIo> make_io(const fakes::FakeScript& faults = {}) {
    auto io = std::make_unique<fakes::FakeIo>(BlockIoOptions{}, disk, faults);
    io->open("data", FileMode::kReadWriteCreate);
    return io;
  }
  void SetUp() override { disk->put("data", std::vector<std::byte>(4 << 20)); }

  std::shared_ptr<fakes::FakeDisk> disk = std::make_shared<fakes::FakeDisk>();
  RecordingRunner runner;
  Script script;
};

TEST_F(ExecutorTest, RunsEachLaneInOrderAndEachStepAfterItsWaits) {
  runner.slow_unit = 0;
  script.add(LaneKind::kH2d, StepKind::kLoadWeights);                 // 0, slow
  script.add(LaneKind::kGpu, StepKind::kPre, {{LaneKind::kH2d, 1}});  // 1
  script.add(LaneKind::kGpu, StepKind::kPost);                        // 2
  script.add(LaneKind::kCpu, StepKind::kAttend);                      // 3, waits for nobody
  script.add(LaneKind::kD2h, StepKind::kStoreKv, {{LaneKind::kGpu, 2}, {LaneKind::kCpu, 1}});  // 4
  Executor executor(runner, make_io(), make_io());
  std::vector<policy::StepTime> times(script.schedule.steps.size());
  executor.submit(script.schedule, &times);
  executor.wait_all(script.schedule.last_seq);
  EXPECT_TRUE(executor.status().ok());
  EXPECT_THAT(runner.order, ::testing::ElementsAre(3, 0, 1, 2, 4));
  EXPECT_LE(times[0].end_sec, times[1].start_sec);
  EXPECT_GE(times[0].end_sec - times[0].start_sec, 0.03);
  const auto counters = executor.counters();
  EXPECT_EQ(counters[lane_index(LaneKind::kGpu)].steps, 2);
  EXPECT_EQ(counters[lane_index(LaneKind::kGpu)].bytes, 20);
  EXPECT_GE(counters[lane_index(LaneKind::kGpu)].stalled_sec, 0.02);
}

TEST_F(ExecutorTest, GoesOnFromScheduleToScheduleEvenOnLanesThatWereIdle) {
  Executor executor(runner, make_io(), make_io());
  for (int i = 0; i < 50; ++i) {
    script.next();
    script.add(LaneKind::kGpu, StepKind::kPre);
    if (i == 49) script.add(LaneKind::kCpu, StepKind::kAttend);
    executor.submit(script.schedule);
    executor.wait_all(script.schedule.last_seq);
  }
  EXPECT_EQ(runner.order.size(), 51U);
}

TEST_F(ExecutorTest, SkipsWhatFollowsAFailureAndReportsTheFirst) {
  runner.failing_unit = 1;
  script.add(LaneKind::kH2d, StepKind::kLoadWeights);
  script.add(LaneKind::kGpu, StepKind::kPre, {{LaneKind::kH2d, 1}});
  script.add(LaneKind::kGpu, StepKind::kPost);
  script.add(LaneKind::kDiskRead, StepKind::kReadKv, {{LaneKind::kGpu, 2}});
  Executor executor(runner, make_io(), make_io());
  executor.submit(script.schedule);
  executor.wait_all(script.schedule.last_seq);  // nobody hangs
  EXPECT_EQ(executor.status().code(), Code::kDevice);
  EXPECT_THAT(executor.status().message(), ::testing::AllOf(::testing::HasSubstr("pre of unit 1"),
                                                            ::testing::HasSubstr("broken; mend it")));
  EXPECT_THAT(runner.order, ::testing::ElementsAre(0));
  EXPECT_EQ(executor.counters()[lane_index(LaneKind::kDiskRead)].bytes, 0);
}

TEST_F(ExecutorTest, ReportsADiskFailureWithFileAndOffset) {
  fakes::FakeScript broken;
  broken.faults.push_back({.op = IoOp::kRead, .path = "", .begin = 0, .error = EIO});
  script.add(LaneKind::kDiskRead, StepKind::kReadKv);
  script.add(LaneKind::kH2d, StepKind::kLoadKv, {{LaneKind::kDiskRead, 1}});
  Executor executor(runner, make_io(broken), make_io());
  executor.submit(script.schedule);
  executor.wait_all(script.schedule.last_seq);
  EXPECT_EQ(executor.status().code(), Code::kIo);
  EXPECT_THAT(executor.status().message(), ::testing::HasSubstr("data"));
  EXPECT_TRUE(runner.order.empty());
}

TEST_F(ExecutorTest, KeepsSeveralDiskStepsInFlightAndFinishesThemInOrder) {
  fakes::FakeScript slow;
  slow.delay = std::chrono::milliseconds(5);
  slow.reorder = true;
  runner.requests_per_step = 4;
  for (int i = 0; i < 8; ++i) script.add(LaneKind::kDiskRead, StepKind::kReadKv);
  Executor executor(runner, make_io(slow), make_io());
  std::vector<policy::StepTime> times(script.schedule.steps.size());
  const double start = executor.now_sec();
  executor.submit(script.schedule, &times);
  executor.wait_all(script.schedule.last_seq);
  // One after another, 8 steps of 5 ms would take 40 ms.
  EXPECT_LT(executor.now_sec() - start, 0.035);
  for (std::size_t i = 1; i < times.size(); ++i) EXPECT_LE(times[i - 1].end_sec, times[i].end_sec);
  EXPECT_EQ(executor.counters()[lane_index(LaneKind::kDiskRead)].bytes, 8 * 4 * 4096);
}

TEST_F(ExecutorTest, TakesMoreRequestsThanTheQueueHolds) {
  runner.requests_per_step = 200;
  script.add(LaneKind::kDiskWrite, StepKind::kWriteKv);
  Executor executor(runner, make_io(), make_io());
  executor.submit(script.schedule);
  executor.wait_all(script.schedule.last_seq);
  EXPECT_TRUE(executor.status().ok()) << executor.status().message();
  EXPECT_EQ(executor.counters()[lane_index(LaneKind::kDiskWrite)].bytes, 200 * 4096);
}

TEST_F(ExecutorTest, StopsWithStepsStillWaiting) {
  runner.slow_unit = 0;
  script.add(LaneKind::kH2d, StepKind::kLoadWeights);
  for (int i = 0; i < 20; ++i) script.add(LaneKind::kGpu, StepKind::kPre, {{LaneKind::kH2d, 1}});
  {
    Executor executor(runner, make_io(), make_io());
    executor.submit(script.schedule);
  }  // the destructor neither hangs nor runs what is left
  EXPECT_LE(runner.order.size(), 1U);
}

// The lane has not looked at the schedule since it finished its last step, and now finds more of them there.
TEST_F(ExecutorTest, AScheduleMayBeRebuiltOnceItsStepsAreFinished) {
  Executor executor(runner, make_io(), make_io());
  std::vector<int> expected;
  for (int i = 1; i <= 20; ++i) {
    script.next();
    for (int unit = 0; unit < i; ++unit) {
      script.add(LaneKind::kGpu, StepKind::kPre);
      expected.push_back(unit);
    }
    executor.submit(script.schedule);
    executor.wait_all(script.schedule.last_seq);
  }
  EXPECT_EQ(runner.order, expected);
}

}  // namespace
}  // namespace sluice::offload
