// Budgets, arenas, and what the machine can still give.
#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>
#include <sys/resource.h>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/units.h"
#include "offload/memory/arena.h"
#include "offload/memory/budget.h"
#include "offload/memory/tier_memory.h"
#include "offload/memory/usable_memory.h"
#include "tests/fakes/fake_async_device.h"
#include "tests/support/error_of.h"

namespace sluice::offload {
namespace {

namespace fs = std::filesystem;
using kernels::fakes::FakeAsyncDevice;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using sluice::testing::error_of;

PerTier<std::int64_t> tiers(std::int64_t gpu, std::int64_t cpu, std::int64_t disk) {
  return {{gpu, cpu, disk}};
}

TEST(MemoryBudget, GivesBytesBackWhenTheReservationEnds) {
  MemoryBudget budget(tiers(8_GiB, 4_GiB, 0));
  {
    Reservation first = budget.reserve(Tier::kGpu, 5_GiB, "weights");
    EXPECT_EQ(budget.reserved(Tier::kGpu), 5_GiB);
    Reservation second = std::move(first);
    EXPECT_EQ(second.bytes(), 5_GiB);
    // The moved-from state is what is tested.
    EXPECT_EQ(first.bytes(), 0);  // NOLINT(bugprone-use-after-move,clang-analyzer-cplusplus.Move)
    EXPECT_EQ(budget.reserved(Tier::kGpu), 5_GiB);
    second = budget.reserve(Tier::kCpu, 1_GiB, "staging");
    EXPECT_EQ(budget.reserved(Tier::kGpu), 0);
    EXPECT_EQ(budget.reserved(Tier::kCpu), 1_GiB);
  }
  EXPECT_EQ(budget.reserved(Tier::kCpu), 0);
}

TEST(MemoryBudget, RefusalSaysNeedFreeMissingAndKnob) {
  MemoryBudget budget(tiers(8_GiB, 4_GiB, 1_GiB));
  const Reservation held = budget.reserve(Tier::kGpu, 6_GiB, "weights");
  const Error gpu = error_of([&] { (void)budget.reserve(Tier::kGpu, 5_GiB, "KV cache"); });
  EXPECT_EQ(gpu.code(), Code::kOutOfMemory);
  EXPECT_THAT(gpu.what(),
              AllOf(HasSubstr("KV cache"), HasSubstr("need 5.00 GiB"), HasSubstr("2.00 GiB of 8.00 GiB"),
                    HasSubstr("3.00 GiB missing"), HasSubstr("--gpu-memory")));
  EXPECT_EQ(budget.reserved(Tier::kGpu), 6_GiB) << "a refusal reserves nothing";
  EXPECT_THAT(error_of([&] { (void)budget.reserve(Tier::kCpu, 5_GiB, "x"); }).fix(),
              HasSubstr("--cpu-memory"));
  EXPECT_THAT(error_of([&] { (void)budget.reserve(Tier::kDisk, 5_GiB, "x"); }).fix(),
              HasSubstr("--disk-memory"));
  EXPECT_EQ(error_of([&] { (void)budget.reserve(Tier::kCpu, INT64_MAX, "x"); }).code(), Code::kOutOfMemory);
}

TEST(MemoryBudget, ZeroBytesFitAnEmptyBudgetAndNegativeOnesAreABug) {
  MemoryBudget budget(tiers(0, 0, 0));
  EXPECT_EQ(budget.reserve(Tier::kDisk, 0, "nothing").bytes(), 0);
  EXPECT_EQ(error_of([&] { (void)budget.reserve(Tier::kDisk, -1, "x"); }).code(), Code::kInternal);
}

TEST(MemoryBudget, NeverPromisesMoreThanItHasToManyThreads) {
  MemoryBudget budget(tiers(0, 1000, 0));
  std::atomic<int> granted{0};
  std::vector<Reservation> kept(8);
  {
    std::vector<std::jthread> threads;
    for (Reservation& mine : kept) {
      threads.emplace_back([&] {
        for (int i = 0; i < 200; ++i) {
          try {
            mine = budget.reserve(Tier::kCpu, 200, "x");
            ++granted;
          } catch (const Error&) {
          }
          ASSERT_LE(budget.reserved(Tier::kCpu), 1000);
        }
      });
    }
  }
  EXPECT_GE(granted, 5);
  kept.clear();
  EXPECT_EQ(budget.reserved(Tier::kCpu), 0);
}

TEST(Arena, HandsOutAlignedDisjointZeroedBlocks) {
  MemoryBudget budget(tiers(0, 1_GiB, 0));
  Arena arena(budget.reserve(Tier::kCpu, 4_MiB + 1, "test"), 2);
  EXPECT_EQ(arena.memory().size(), 4_MiB + kPageAlign);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(arena.memory().data()) % (2_MiB), 0U);
  const auto a = arena.take(1, "a");
  const auto b = arena.take(0, "b");
  const auto c = arena.take(kPageAlign, "c");
  EXPECT_EQ(a.size(), 1U);
  EXPECT_EQ(b.size(), 0U);
  EXPECT_EQ(b.data(), a.data() + kPageAlign);
  EXPECT_EQ(c.data(), a.data() + kPageAlign);
  EXPECT_EQ(arena.taken_bytes(), 2 * kPageAlign);
  for (const std::byte x : arena.memory()) ASSERT_EQ(x, std::byte{0});
}

TEST(Arena, TakingMoreThanThePlanIsABug) {
  MemoryBudget budget(tiers(0, 1_GiB, 0));
  Arena arena(budget.reserve(Tier::kCpu, 2 * kPageAlign, "test"), 0);
  arena.take(kPageAlign + 1, "first");
  const Error e = error_of([&] { (void)arena.take(1, "one page too many"); });
  EXPECT_EQ(e.code(), Code::kInternal);
  EXPECT_THAT(e.what(), HasSubstr("one page too many"));
}

TEST(Arena, OfSizeZeroIsEmpty) {
  MemoryBudget budget(tiers(0, 0, 0));
  Arena arena(budget.reserve(Tier::kGpu, 0, "test"), 4);
  EXPECT_TRUE(arena.memory().empty());
  EXPECT_TRUE(arena.take(0, "nothing").empty());
  EXPECT_EQ(error_of([&] { (void)arena.take(1, "x"); }).code(), Code::kInternal);
}

TEST(Arena, MovesAndGivesItsReservationBack) {
  MemoryBudget budget(tiers(0, 1_GiB, 0));
  {
    Arena first(budget.reserve(Tier::kCpu, 1_MiB, "a"), 1);
    Arena second = std::move(first);
    EXPECT_EQ(second.memory().size(), 1_MiB);
    second = Arena(budget.reserve(Tier::kCpu, 2_MiB, "b"), 1);
    EXPECT_EQ(second.memory().size(), 2_MiB);
    EXPECT_EQ(budget.reserved(Tier::kCpu), 2_MiB);
  }
  EXPECT_EQ(budget.reserved(Tier::kCpu), 0);
}

TEST(Arena, SystemRefusalNamesTheNumbersAndTheOption) {
  // 2^60 bytes are beyond the address space of a process: mmap itself refuses.
  MemoryBudget budget(tiers(INT64_MAX, 0, 0));
  const Error e = error_of([&] { Arena(budget.reserve(Tier::kGpu, std::int64_t{1} << 60, "test"), 1); });
  EXPECT_EQ(e.code(), Code::kOutOfMemory);
  EXPECT_THAT(e.what(), AllOf(HasSubstr("refused"), HasSubstr("usable"), HasSubstr("--gpu-memory")));
  EXPECT_EQ(budget.reserved(Tier::kGpu), 0);
}

TEST(Arena, TouchMakesMemoryResident) {
  MemoryBudget budget(tiers(0, 1_GiB, 0));
  const std::int64_t before = resident_bytes();
  const Arena arena(budget.reserve(Tier::kCpu, 160_MiB, "test"), 3);
  EXPECT_GE(resident_bytes() - before, 150_MiB);
  EXPECT_GE(peak_resident_bytes(), 150_MiB);
}

// ---- With a device that has memory of its own.

TEST(ArenaOnADevice, TakesTheGpuTierFromItAndPinsTheCpuTier) {
  MemoryBudget budget(tiers(1_GiB, 1_GiB, 0));
  FakeAsyncDevice device;
  {
    const std::int64_t free = device.free_bytes();
    Arena gpu(budget.reserve(Tier::kGpu, 2_MiB + 1, "test"), 1, device);
    EXPECT_EQ(gpu.memory().size(), 2_MiB + kPageAlign);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(gpu.memory().data()) % kPageAlign, 0U);
    EXPECT_EQ(device.free_bytes(), free - (2_MiB + kPageAlign));
    EXPECT_EQ(gpu.take(1, "a").data(), gpu.memory().data());
    const Arena cpu(budget.reserve(Tier::kCpu, 4_MiB, "test"), 1, device);
    for (const std::byte x : cpu.memory()) ASSERT_EQ(x, std::byte{0});
  }
  EXPECT_THAT(device.log(), ElementsAre("allocate 2101248", "pin 4194304", "unpin", "free"));
  EXPECT_EQ(budget.reserved(Tier::kGpu), 0);
}

// The fake looks whether what it unpins is still mapped.
TEST(ArenaOnADevice, UnpinsBeforeItUnmapsWhenItIsMovedOver) {
  MemoryBudget budget(tiers(1_GiB, 1_GiB, 0));
  FakeAsyncDevice device;
  Arena arena(budget.reserve(Tier::kCpu, 1_MiB, "first"), 1, device);
  arena = Arena(budget.reserve(Tier::kCpu, 2_MiB, "second"), 1, device);
  EXPECT_EQ(arena.memory().size(), 2_MiB);
  EXPECT_THAT(device.log(), ElementsAre("pin 1048576", "pin 2097152", "unpin"));
  Arena gpu(budget.reserve(Tier::kGpu, 1_MiB, "third"), 1, device);
  gpu = Arena(budget.reserve(Tier::kGpu, 0, "nothing"), 1, device);
  EXPECT_TRUE(gpu.memory().empty());
  EXPECT_EQ(device.log().back(), "free");
  EXPECT_EQ(budget.reserved(Tier::kGpu), 0);
}

TEST(ArenaOnADevice, GoesOnWithoutPinning) {
  MemoryBudget budget(tiers(0, 1_GiB, 0));
  FakeAsyncDevice device({.most_pinned_bytes = 0});
  {
    const Arena cpu(budget.reserve(Tier::kCpu, 1_MiB, "test"), 1, device);
    EXPECT_EQ(cpu.memory().size(), 1_MiB);
  }
  EXPECT_THAT(device.log(), ElementsAre("refuse to pin 1048576"));
}

TEST(ArenaOnADevice, ARefusalKeepsNoReservation) {
  MemoryBudget budget(tiers(8_GiB, 0, 0));
  FakeAsyncDevice device({.free_bytes = 3_GiB});
  const Error e = error_of([&] { Arena(budget.reserve(Tier::kGpu, 5_GiB, "test"), 1, device); });
  EXPECT_EQ(e.code(), Code::kOutOfMemory);
  EXPECT_THAT(e.what(), AllOf(HasSubstr("5.00 GiB"), HasSubstr("3.00 GiB"), HasSubstr("--gpu-memory")));
  EXPECT_EQ(budget.reserved(Tier::kGpu), 0);
}

policy::MemoryPlan plan_of(std::int64_t gpu_weights, std::int64_t gpu_kv, std::int64_t cpu_weights) {
  policy::MemoryPlan plan;
  plan.items = {{policy::Purpose::kWeights, Tier::kGpu, gpu_weights},
                {policy::Purpose::kKv, Tier::kGpu, gpu_kv},
                {policy::Purpose::kWeights, Tier::kCpu, cpu_weights}};
  plan.total = tiers(gpu_weights + gpu_kv, cpu_weights, 0);
  return plan;
}

TEST(TierMemory, OnADeviceIsThePlanAndComesBackAsAWhole) {
  FakeAsyncDevice device;
  const policy::MemoryPlan plan = plan_of(2_MiB, 1_MiB, 4_MiB);
  MemoryBudget budget(plan.total);
  {
    const TierMemory memory(plan, budget, {}, 1, device);
    const auto weights = memory.block(policy::Purpose::kWeights, Tier::kGpu);
    const auto kv = memory.block(policy::Purpose::kKv, Tier::kGpu);
    EXPECT_EQ(weights.data(), memory.arena(Tier::kGpu).data());
    EXPECT_EQ(kv.data(), weights.data() + 2_MiB);
    EXPECT_EQ(memory.block(policy::Purpose::kWeights, Tier::kCpu).data(), memory.arena(Tier::kCpu).data());
  }
  EXPECT_THAT(device.log(), ElementsAre("allocate 3145728", "pin 4194304", "unpin", "free"));
  for (Tier tier : kTiers) EXPECT_EQ(budget.reserved(tier), 0);
}

TEST(TierMemory, WhereNotAllCanBePinnedTheWeightsGoWithout) {
  policy::MemoryPlan plan = plan_of(2_MiB, 1_MiB, 4_MiB);
  plan.items.push_back({policy::Purpose::kKv, Tier::kCpu, 1_MiB});
  plan.total[Tier::kCpu] += 1_MiB;
  struct Case {
    std::int64_t most_pinned;
    HostWeights weights;
    std::vector<std::string> pins;
    const char* said;
  };
  const std::vector<Case> cases = {
      {8_MiB, HostWeights::kPinned, {"pin 5242880"}, ""},
      {8_MiB, HostWeights::kPageable, {"pin 1048576"}, ""},
      {2_MiB,
       HostWeights::kPinned,
       {"refuse to pin 5242880", "pin 1048576"},
       "cpu memory: 1.00 MiB of 5.00 MiB are pinned, without the weights"},
      {1_MiB - 1,
       HostWeights::kPinned,
       {"refuse to pin 5242880", "refuse to pin 1048576"},
       "cpu memory: nothing of 5.00 MiB is pinned"},
      {1_MiB - 1,
       HostWeights::kPageable,
       {"refuse to pin 1048576"},
       "cpu memory: nothing of 5.00 MiB is pinned"},
  };
  for (const Case& expected : cases) {
    FakeAsyncDevice device({.most_pinned_bytes = expected.most_pinned});
    MemoryBudget budget(plan.total);
    ::testing::internal::CaptureStderr();
    { const TierMemory memory(plan, budget, {}, 1, device, expected.weights); }
    EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr(expected.said));
    std::vector<std::string> pins;
    for (const std::string& event : device.log()) {
      if (event.find("pin ") != std::string::npos) pins.push_back(event);
    }
    EXPECT_EQ(pins, expected.pins);
  }
}

TEST(TierMemory, ARefusalSaysWhatTheMemoryWasFor) {
  const policy::MemoryPlan plan = plan_of(2_GiB, 1_GiB, 4_MiB);
  const auto all_of_the_plan =
      AllOf(HasSubstr("(planned: gpu: 3.00 GiB = "), HasSubstr(" 2.00 GiB + "), HasSubstr("--gpu-memory"));
  {
    FakeAsyncDevice device({.free_bytes = 2_GiB});
    MemoryBudget budget(plan.total);
    const Error e = error_of([&] { TierMemory(plan, budget, {}, 1, device); });
    EXPECT_EQ(e.code(), Code::kOutOfMemory);
    EXPECT_THAT(e.what(), AllOf(all_of_the_plan, HasSubstr("need 3.00 GiB, but 2.00 GiB are free")));
    EXPECT_THAT(e.fix(), HasSubstr("--gpu-memory"));
    EXPECT_EQ(budget.reserved(Tier::kGpu), 0);
  }
  {
    FakeAsyncDevice device;
    MemoryBudget budget(tiers(1_GiB, 1_GiB, 0));
    const Error e = error_of([&] { TierMemory(plan, budget, {}, 1, device); });
    EXPECT_THAT(e.what(), AllOf(all_of_the_plan, HasSubstr("2.00 GiB missing")));
    EXPECT_THAT(device.log(), ElementsAre()) << "nothing is touched before all is promised";
  }
}

/// Fake /proc and /sys trees.
class FakeRoots {
 public:
  FakeRoots() {
    std::string name = (fs::temp_directory_path() / "sluice_roots_XXXXXX").string();
    folder_ = mkdtemp(name.data());
    write("proc/meminfo", "MemTotal:       65536 kB\nMemFree:  1 kB\nMemAvailable:   32768 kB\n");
  }
  ~FakeRoots() { fs::remove_all(folder_); }
  FakeRoots(const FakeRoots&) = delete;
  FakeRoots& operator=(const FakeRoots&) = delete;
  void write(const fs::path& path, const std::string& text) const {
    fs::create_directories((folder_ / path).parent_path());
    std::ofstream(folder_ / path) << text;
  }
  SystemRoots roots() const { return {folder_ / "proc", folder_ / "sys"}; }

 private:
  fs::path folder_;
};

TEST(UsableMemory, WithoutCgroupsIsMemAvailable) {
  const FakeRoots fake;
  EXPECT_EQ(usable_host_bytes(fake.roots()), 32_MiB);
  EXPECT_EQ(cgroup_headroom_bytes(fake.roots()), std::nullopt);
}

TEST(UsableMemory, TakesTheTightestLevelOfVersion2) {
  const FakeRoots fake;
  fake.write("proc/self/cgroup", "0::/user/job\n");
  fake.write("sys/fs/cgroup/user/job/memory.max", "max\n");
  fake.write("sys/fs/cgroup/user/job/memory.current", "1048576\n");
  fake.write("sys/fs/cgroup/user/memory.max", "16777216\n");
  fake.write("sys/fs/cgroup/user/memory.current", "8388608\n");
  fake.write("sys/fs/cgroup/user/memory.stat", "anon 1\ninactive_file 2097152\nactive_file 7\n");
  EXPECT_EQ(cgroup_headroom_bytes(fake.roots()), 10_MiB);
  EXPECT_EQ(usable_host_bytes(fake.roots()), 10_MiB);
  fake.write("sys/fs/cgroup/user/job/memory.max", "1000000\n");  // below its use: nothing is left
  EXPECT_EQ(usable_host_bytes(fake.roots()), 0);
}

TEST(UsableMemory, ReadsVersion1AndItsNoLimit) {
  const FakeRoots fake;
  fake.write("proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/box/inner\n0::/\n");
  fake.write("sys/fs/cgroup/memory/box/inner/memory.limit_in_bytes", "9223372036854771712\n");
  fake.write("sys/fs/cgroup/memory/box/inner/memory.usage_in_bytes", "4096\n");
  EXPECT_EQ(cgroup_headroom_bytes(fake.roots()), std::nullopt);
  fake.write("sys/fs/cgroup/memory/box/memory.limit_in_bytes", "9437184\n");
  fake.write("sys/fs/cgroup/memory/box/memory.usage_in_bytes", "1048576\n");
  EXPECT_EQ(cgroup_headroom_bytes(fake.roots()), 8_MiB);
}

TEST(UsableMemory, InAContainerThePathMayBeTheHosts) {
  const FakeRoots fake;
  fake.write("proc/self/cgroup", "4:memory:/docker/0123\n");
  fake.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "4194304\n");
  fake.write("sys/fs/cgroup/memory/memory.usage_in_bytes", "1048576\n");
  EXPECT_EQ(usable_host_bytes(fake.roots()), 3_MiB);
  fake.write("proc/self/cgroup", "4:memory:/../../elsewhere\n");
  EXPECT_EQ(usable_host_bytes(fake.roots()), 3_MiB);
}

TEST(UsableMemory, MissingOrGarbledMeminfoIsAnError) {
  const FakeRoots fake;
  fake.write("proc/meminfo", "MemAvailable: lots\n");
  EXPECT_EQ(error_of([&] { usable_host_bytes(fake.roots()); }).code(), Code::kIo);
  EXPECT_EQ(error_of([&] { resident_bytes(fake.roots()); }).code(), Code::kIo);
}

TEST(UsableMemory, OfThisMachineIsPlausible) {
  EXPECT_GT(usable_host_bytes(), 1_MiB);
  EXPECT_LE(usable_host_bytes(), available_bytes() + 1_GiB);
  EXPECT_GE(peak_resident_bytes(), 1_MiB);
  // A folder that does not exist yet is judged by its nearest parent that does.
  EXPECT_GT(usable_disk_bytes(fs::temp_directory_path() / "not" / "yet" / "there"), 0);
}

}  // namespace
}  // namespace sluice::offload
