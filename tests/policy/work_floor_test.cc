#include "policy/work_floor.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "policy/profile_floor.h"
#include "tests/policy/shapes.h"

namespace sluice::policy {
namespace {

constexpr MeasuredRates kRates{
    .h2d_bytes_per_sec = 55.3e9, .cpu_attention_bytes_per_sec = 115e9, .flops = 710e12};

/// OPT-30B in 16 GiB of GPU memory: 18 % of the weights there, KV in CPU memory.
RunShape opt_30b(std::int64_t gpu_batch_size, bool cpu_attention) {
  const ModelSpec spec = testing::opt_spec(48, 7168, 56);
  Placement placement;
  placement.percents = parse_percents({18, 82, 0, 100, 100, 0});
  placement.gpu_batch_size = gpu_batch_size;
  placement.num_gpu_batches = 2;
  placement.cpu_attention = cpu_attention;
  const Workload work{.max_prompt_len = 512, .max_gen_len = 32, .max_total_len = 544, .num_requests = 264};
  return make_run_shape(spec, testing::tensor_sizes(spec), placement, work, testing::test_traits());
}

std::vector<SequenceWork> same(std::int64_t count, std::int64_t prompt_len, std::int64_t generated) {
  return std::vector<SequenceWork>(static_cast<std::size_t>(count),
                                   {prompt_len, generated, Workload::seat_tokens(prompt_len, generated)});
}

// DESIGN section 9 for requests of one shape: B n / max(Tp, n T).
TEST(WorkFloor, OfRequestsOfOneShapeIsTheDesignsFormula) {
  const RunShape shape = opt_30b(44, true);
  const WorkFloor floor = work_floor(shape, same(264, 512, 32), kRates);
  EXPECT_EQ(floor.least_passes, 3 * 32);
  EXPECT_NEAR(264 * 32 / floor.sec(), 98, 1) << "the README's bound of the mixed run";
  EXPECT_EQ(floor.sec(), floor.h2d_sec);
  EXPECT_NEAR(floor.gpu_sec, 264 * (512 + 31) * 2 * 29.6e9 / 710e12, 0.5);
  const double kv_token = 48 * 7168 * 2 * 2;  // bytes of K and V in all layers
  EXPECT_NEAR(floor.cpu_sec, 264 * 31 * (512 + 16) * kv_token / 115e9, 1e-9);
}

TEST(WorkFloor, StreamedKvIsTheLinks) {
  const WorkFloor attended = work_floor(opt_30b(44, true), same(88, 512, 32), kRates);
  const WorkFloor streamed = work_floor(opt_30b(44, false), same(88, 512, 32), kRates);
  EXPECT_EQ(streamed.cpu_sec, 0);
  EXPECT_NEAR(streamed.h2d_sec, attended.h2d_sec + attended.cpu_sec * 115e9 / 55.3e9, 1e-6);
}

TEST(WorkFloor, PassesAreAsManyAsTheLongestTheSeatsOrThePagesNeed) {
  const RunShape shape = opt_30b(44, true);  // 88 seats of 9 pages
  ASSERT_EQ(shape.seats.pages_per_layer[Tier::kCpu], 88 * 9);
  std::vector<SequenceWork> work = same(10, 100, 7);
  work.push_back({.prompt_len = 5, .generated = 32, .seat_tokens = 36});
  EXPECT_EQ(work_floor(shape, work, kRates).least_passes, 32) << "the longest";
  EXPECT_EQ(work_floor(shape, same(200, 20, 30), kRates).least_passes, 69) << "6000 tokens, 88 seats";
  EXPECT_EQ(work_floor(shape, same(200, 1100, 30), kRates).least_passes, 137) << "6000 x 18 pages, 792 there";
  // Requests that stop early held the pages that they asked for.
  std::vector<SequenceWork> stopped = same(200, 500, 10);
  for (SequenceWork& one : stopped) one.seat_tokens = 1100;
  EXPECT_EQ(work_floor(shape, stopped, kRates).least_passes, 46);
}

// DESIGN section 9: B n / (Tp + (n-1) T), one block after another.
TEST(WorkFloor, OfOneBlockThePromptsComeFirst) {
  RunShape shape = opt_30b(44, true);
  const WorkFloor mixed = work_floor(shape, same(88, 512, 32), kRates);
  const double pass_sec = mixed.h2d_sec / 32;
  const double prompt_sec = 88 * 512 * 2 * 29.6e9 / 710e12;
  EXPECT_NEAR(mixed.serial_sec, prompt_sec + 31 * pass_sec, 0.1);
  EXPECT_EQ(mixed.unmixed_sec, 0);
  EXPECT_EQ(mixed.sec(), mixed.serial_sec) << "more than 32 passes over the weights";
  std::vector<SequenceWork> one_short = same(88, 512, 32);
  one_short.back().generated = 2;
  EXPECT_NEAR(work_floor(shape, one_short, kRates).serial_sec, prompt_sec + pass_sec, 0.1)
      << "its prompt may be the last";
  shape.placement.mixing = false;
  const WorkFloor apart = work_floor(shape, same(88, 512, 32), kRates);
  EXPECT_NEAR(apart.unmixed_sec, std::max(prompt_sec, pass_sec) + 31 * pass_sec, 0.1);
  // Three blocks need three times the passes; each prompt's pass gives a token that no decoding pass makes.
  const WorkFloor three = work_floor(shape, same(264, 512, 32), kRates);
  EXPECT_NEAR(three.unmixed_sec, std::max(3 * prompt_sec, pass_sec) + 3 * 31 * pass_sec, 0.1);
}

TEST(WorkFloor, WithoutPrefetchTheGpuWaitsForTheWeightsOfEveryPass) {
  RunShape shape = opt_30b(44, true);
  const WorkFloor under = work_floor(shape, same(88, 512, 32), kRates);
  EXPECT_EQ(under.unprefetched_sec, 0);
  shape.placement.prefetch = false;
  MeasuredRates rates = kRates;
  const WorkFloor apart = work_floor(shape, same(88, 512, 32), rates);
  EXPECT_NEAR(apart.unprefetched_sec, apart.h2d_sec + apart.gpu_sec, 1e-9) << "the CPU attends: no KV moves";
  EXPECT_EQ(apart.h2d_sec, under.h2d_sec);
  EXPECT_EQ(apart.sec(), apart.unprefetched_sec);
}

TEST(WorkFloor, TheDiskAndGpuMemoryBoundWhereTheirRatesAreKnown) {
  const ModelSpec spec = testing::opt_spec(48, 7168, 56);
  Placement placement;
  placement.percents = parse_percents({0, 40, 0, 50, 100, 0});
  placement.gpu_batch_size = 16;
  const Workload work{.max_prompt_len = 512, .max_gen_len = 32, .max_total_len = 544, .num_requests = 16};
  const RunShape shape =
      make_run_shape(spec, testing::tensor_sizes(spec), placement, work, testing::test_traits());
  MeasuredRates rates = kRates;
  EXPECT_EQ(work_floor(shape, same(16, 512, 32), rates).disk_sec, 0) << "left out";
  rates.disk_read_bytes_per_sec = 2e9;
  rates.pass_products_sec = 3;
  const WorkFloor floor = work_floor(shape, same(16, 512, 32), rates);
  std::int64_t disk = 0;
  for (const UnitStream& unit : shape.units) disk += unit.disk_bytes;
  const double half_kv = 0.5 * 16 * 31 * (512 + 16) * 48 * 7168 * 2 * 2;
  EXPECT_NEAR(floor.disk_sec, (32 * static_cast<double>(disk) + half_kv) / 2e9, 1e-6);
  EXPECT_EQ(floor.gpu_sec, 96) << "32 passes over all weights";
  EXPECT_EQ(floor.sec(), floor.disk_sec);
}

HardwareProfile machine() {
  HardwareProfile hardware;
  hardware.link.h2d = {{64, 16}, {32768, 50}};
  hardware.link.d2h = {{64, 16}, {32768, 40}};
  hardware.gpu.products = {{.rows = 1, .tflop_per_sec = 2}, {.rows = 512, .tflop_per_sec = 600}};
  hardware.cpu.attention = {{KvFormat::kF16, 15, 120, 0}};
  hardware.disk.read = {{8, 1024, 1.5, 0}, {32, 1024, 1.75, 0}};
  hardware.beside_attention = {{15, 0.8, 0.9, 0.95}};
  return hardware;
}

TEST(ProfileFloor, RatesAreThoseOfTheProfile) {
  const RunShape attended = opt_30b(44, true);
  const MeasuredRates together = measured_rates(machine(), attended, {});
  EXPECT_NEAR(together.h2d_bytes_per_sec, 0.8 * 50e9, 1);
  EXPECT_NEAR(together.cpu_attention_bytes_per_sec, 0.95 * 120e9, 1);
  EXPECT_NEAR(together.disk_read_bytes_per_sec, 1.75e9, 1);
  EXPECT_NEAR(together.flops, 600e12, 1e6);
  EXPECT_NEAR(together.pass_products_sec, 2 * 29.9e9 / 2e12, 1e-3) << "a row of all matrices";
  EXPECT_NEAR(measured_rates(machine(), opt_30b(44, false), {}).h2d_bytes_per_sec, 50e9, 1)
      << "the CPU does not attend";
  RunShape apart = opt_30b(44, true);
  apart.placement.prefetch = false;
  EXPECT_NEAR(measured_rates(machine(), apart, {}).h2d_bytes_per_sec, 50e9, 1)
      << "weights come between units";
  HardwareProfile cpu_device = machine();
  cpu_device.memory.gpu_is_host = true;
  EXPECT_NEAR(measured_rates(cpu_device, attended, {}).h2d_bytes_per_sec, 50e9, 1) << "lanes take turns";
}

TEST(ProfileFloor, PeaksAreTheHighestMeasured) {
  const std::array<double, kNumLanes> peaks = peak_rates(machine(), KvFormat::kF16);
  EXPECT_NEAR(peaks[lane_index(LaneKind::kH2dUrgent)], 50e9, 1);
  EXPECT_NEAR(peaks[lane_index(LaneKind::kD2h)], 40e9, 1);
  EXPECT_NEAR(peaks[lane_index(LaneKind::kDiskRead)], 1.75e9, 1);
  EXPECT_NEAR(peaks[lane_index(LaneKind::kCpu)], 120e9, 1);
  EXPECT_EQ(peaks[lane_index(LaneKind::kGpu)], 0);
}

TEST(WorkFloor, ARateThatIsNeededIsNotZero) {
  EXPECT_THROW(work_floor(opt_30b(44, true), same(1, 10, 2), {.h2d_bytes_per_sec = 1e9, .flops = 1e12}),
               Error);
  EXPECT_NO_THROW(work_floor(opt_30b(44, true), same(1, 10, 1), {.h2d_bytes_per_sec = 1e9, .flops = 1e12}));
}

}  // namespace
}  // namespace sluice::policy
