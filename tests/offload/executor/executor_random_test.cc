// Random schedules on lanes of which some are asynchronous, against a model of memory: every step looks
// whether it finds what its predecessors left, and leaves its own mark.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "offload/executor/executor.h"
#include "tests/fakes/fake_async_device.h"
#include "tests/offload/executor/executor_test_support.h"

namespace sluice::offload {
namespace {

using executor_test::idle_io;
using kernels::fakes::FakeAsyncDevice;
using kernels::fakes::FakeAsyncStream;
using kernels::fakes::FakeDeviceScript;
using policy::kNumLanes;
using policy::lane_index;
using policy::LaneKind;
using policy::Schedule;
using policy::Step;
using policy::StepKind;

/// Slots of memory, each with the tag of its last writer. Every step knows, from the order in which the steps
/// were made, what it must read.
struct Deed {
  struct Access {
    std::size_t slot = 0;
    std::int64_t tag = 0;  // to find, or to leave
  };
  std::vector<Access> reads, writes;
  std::int64_t delay_us = 0;  // between looking and looking again
};

class MemoryRunner : public StepRunner {
 public:
  MemoryRunner(const FakeDeviceScript& script, std::uint32_t asynchronous_lanes) : device_(script) {
    for (std::size_t i = 0; i < kNumLanes; ++i) {
      if ((asynchronous_lanes >> i & 1) != 0 && !policy::is_disk(static_cast<LaneKind>(i)))
        streams_[i] = device_.make_fake_stream();
    }
  }
  kernels::Stream* stream(LaneKind lane) override { return streams_[lane_index(lane)].get(); }
  std::int64_t run(const Step& step) override {
    const Deed& deed = deeds[static_cast<std::size_t>(step.bytes)];
    FakeAsyncStream* stream = streams_[lane_index(step.lane)].get();
    if (stream == nullptr) {
      act(deed);
    } else {
      stream->enqueue([this, &deed] { act(deed); });
    }
    return 1;
  }
  void io_requests(const Step& step, std::vector<IoRequest>& /*out*/) override {
    act(deeds[static_cast<std::size_t>(step.bytes)]);
  }

  std::vector<Deed> deeds;  // by Step::bytes
  std::vector<std::int64_t> memory = std::vector<std::int64_t>(24);
  std::atomic<int> wrong{0};

 private:
  void act(const Deed& deed) {
    for (const Deed::Access& access : deed.writes) memory[access.slot] = -access.tag;
    look(deed);
    if (deed.delay_us > 0) std::this_thread::sleep_for(std::chrono::microseconds(deed.delay_us));
    look(deed);
    for (const Deed::Access& access : deed.writes) {
      if (memory[access.slot] != -access.tag) ++wrong;
      memory[access.slot] = access.tag;
    }
  }
  void look(const Deed& deed) {
    for (const Deed::Access& access : deed.reads) {
      if (memory[access.slot] != access.tag) ++wrong;
    }
  }

  FakeAsyncDevice device_;
  std::array<std::unique_ptr<FakeAsyncStream>, kNumLanes> streams_;
};

/// Makes steps with all the waits, and no others, that their accesses ask for.
class RandomSchedules {
 public:
  RandomSchedules(std::uint32_t seed, MemoryRunner& runner)
      : random_(seed), runner_(runner), slots_(runner.memory.size()) {}

  void fill(Schedule& schedule, int steps) {
    schedule.clear();
    for (int i = 0; i < steps; ++i) {
      Step step;
      step.lane = static_cast<LaneKind>(below(kNumLanes));
      step.kind = StepKind::kPre;
      step.seq = ++seq_[lane_index(step.lane)];
      step.bytes = static_cast<std::int64_t>(runner_.deeds.size());
      step.unit = static_cast<std::int16_t>(step.bytes);
      Deed deed;
      if (below(8) == 0) deed.delay_us = static_cast<std::int64_t>(below(200));
      std::array<std::int64_t, kNumLanes> needed{};
      const auto need = [&](const std::array<std::int64_t, kNumLanes>& users) {
        for (std::size_t lane = 0; lane < kNumLanes; ++lane)
          needed[lane] = std::max(needed[lane], users[lane]);
      };
      std::size_t slot = below(slots_.size() / 3);
      for (std::size_t n = 1 + below(3); n > 0; --n, slot += 1 + below(slots_.size() / 3)) {
        Slot& used = slots_[slot % slots_.size()];
        need(used.writer);
        if (below(2) == 0) {
          deed.reads.push_back({slot % slots_.size(), used.tag});
          used.readers[lane_index(step.lane)] = step.seq;
        } else {
          need(used.readers);
          used = {};
          used.tag = step.bytes + 1;
          used.writer[lane_index(step.lane)] = step.seq;
          deed.writes.push_back({slot % slots_.size(), used.tag});
        }
      }
      for (std::size_t lane = 0; lane < kNumLanes; ++lane) {
        const bool own =
            lane == lane_index(step.lane);  // a lane keeps its own order, a disk lane only starts
        if (needed[lane] > 0 && !own)
          step.waits[step.num_waits++] = {static_cast<LaneKind>(lane), needed[lane]};
      }
      runner_.deeds.push_back(std::move(deed));
      schedule.lane_steps[lane_index(step.lane)].push_back(static_cast<std::int32_t>(schedule.steps.size()));
      schedule.steps.push_back(step);
    }
    schedule.last_seq = seq_;
  }

  std::size_t below(std::size_t n) { return random_() % n; }

 private:
  struct Slot {
    std::int64_t tag = 0;
    std::array<std::int64_t, kNumLanes> writer{}, readers{};  // seq by lane, since the last write
  };
  std::mt19937 random_;
  MemoryRunner& runner_;
  std::vector<Slot> slots_;
  std::array<std::int64_t, kNumLanes> seq_{};
};

/// Joins steps as the schedule of a pass may, each where it can be with a probability of one half.
void join_steps(Schedule& schedule, std::mt19937& random) {
  for (std::size_t lane = 0; lane < kNumLanes; ++lane) {
    const auto& list = schedule.lane_steps[lane];
    const auto step_at = [&](std::size_t i) -> Step& {
      return schedule.steps[static_cast<std::size_t>(list[i])];
    };
    for (std::size_t i = 0; i + 1 < list.size(); ++i)
      step_at(i).joins_next = step_at(i + 1).num_waits == 0 && random() % 2 == 0;
    for (const Step& step : schedule.steps) {
      for (const policy::Wait& wait : step.wait_list()) {
        if (lane_index(wait.lane) == lane && !list.empty() && wait.count >= step_at(0).seq)
          step_at(static_cast<std::size_t>(wait.count - step_at(0).seq)).joins_next = false;
      }
    }
  }
}

class ExecutorAsyncRandom : public ::testing::TestWithParam<std::uint32_t> {};

TEST_P(ExecutorAsyncRandom, EveryStepFindsWhatItsPredecessorsLeft) {
  const std::uint32_t seed = GetParam();
  std::mt19937 random(seed);
  FakeDeviceScript script;
  script.seed = seed;
  script.jitter = std::chrono::microseconds(150);
  // A GPU's lanes, none, all, or any.
  const std::uint32_t gpu = 0b0111'1100;
  const std::uint32_t lanes = seed % 4 == 0   ? gpu
                              : seed % 4 == 1 ? 0xFFU
                                              : static_cast<std::uint32_t>(random() & 0xFFU);
  MemoryRunner runner(script, lanes);
  runner.deeds.reserve(1 << 14);
  RandomSchedules schedules(seed, runner);
  std::array<Schedule, 3> slots;
  std::array<std::vector<policy::StepTime>, 3> times;
  std::array<bool, 3> timed{};  // joined steps go to a stream as one unless their times are asked for
  const StepHook hook = [seed](const Step& step) {
    const auto bits =
        (static_cast<std::uint64_t>(step.seq) * 8 + lane_index(step.lane) + seed) * 0x9E3779B97F4A7C15U >> 32;
    if (bits % 16 == 0) std::this_thread::sleep_for(std::chrono::microseconds(bits / 16 % 200));
  };
  Executor executor(runner, idle_io(), idle_io(), hook);
  std::array<std::vector<double>, kNumLanes> ends;  // by seq
  const auto judge = [&](std::size_t slot) {
    const Schedule& schedule = slots[slot];
    executor.wait_all(schedule.last_seq);
    for (std::size_t i = 0; i < schedule.steps.size(); ++i)
      ends[lane_index(schedule.steps[i].lane)].push_back(times[slot][i].end_sec);
    for (std::size_t i = 0; i < schedule.steps.size() && timed[slot]; ++i) {
      const Step& step = schedule.steps[i];
      const policy::StepTime& time = times[slot][i];
      EXPECT_LE(time.start_sec, time.end_sec);
      for (const policy::Wait& wait : step.wait_list())
        EXPECT_LE(ends[lane_index(wait.lane)][static_cast<std::size_t>(wait.count - 1)], time.start_sec);
      if (step.seq > 1 && !policy::is_disk(step.lane)) {
        EXPECT_LE(ends[lane_index(step.lane)][static_cast<std::size_t>(step.seq - 2)], time.start_sec);
      }
    }
  };
  constexpr int kRounds = 12;
  std::int64_t total = 0;
  for (int round = 0; round < kRounds; ++round) {
    const auto slot = static_cast<std::size_t>(round) % slots.size();
    if (round >= 3) judge(slot);
    // Now and then more than a lane can be ahead.
    const int steps = round % 8 == 5 ? 1200 : 20 + static_cast<int>(schedules.below(60));
    total += steps;
    schedules.fill(slots[slot], steps);
    times[slot].assign(slots[slot].steps.size(), {});
    timed[slot] = schedules.below(2) == 0;
    join_steps(slots[slot], random);
    if (schedules.below(4) == 0) executor.set_wait_mode(WaitMode::kSpin);
    executor.submit(slots[slot], timed[slot] ? &times[slot] : nullptr);
    if (schedules.below(2) == 0) executor.set_wait_mode(WaitMode::kSleep);
  }
  executor.set_wait_mode(WaitMode::kSleep);
  for (std::size_t i = 0; i < 3; ++i) judge((kRounds + i) % 3);
  EXPECT_TRUE(executor.status().ok()) << executor.status().message();
  EXPECT_EQ(runner.wrong.load(), 0) << "seed " << seed;
  EXPECT_EQ(static_cast<std::int64_t>(runner.deeds.size()), total);
}

INSTANTIATE_TEST_SUITE_P(Seeds, ExecutorAsyncRandom, ::testing::Range(0U, 12U));

}  // namespace
}  // namespace sluice::offload
