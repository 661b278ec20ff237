// The simulation: passes whose times can be worked out by hand, properties over random machines, and the time
// that it takes itself.
#include "policy/simulate.h"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <random>

#include <gtest/gtest.h>

#include "core/units.h"
#include "policy/memory_plan.h"
#include "policy/rates.h"
#include "tests/policy/pass_driver.h"
#include "tests/policy/shapes.h"
#include "tests/support/error_of.h"

namespace sluice::policy {
namespace {

using testing::DrivenRequest;
using testing::opt_spec;
using testing::PassDriver;
using testing::plain_machine;
using testing::tensor_sizes;
using testing::test_traits;

RunShape shape_of(const ModelSpec& spec, const Placement& placement, const Workload& work,
                  const DeviceTraits& traits = test_traits()) {
  return make_run_shape(spec, tensor_sizes(spec), placement, work, traits);
}

Placement placed(std::vector<int> percents, std::int64_t gpu_batch_size, std::int64_t num_gpu_batches,
                 bool cpu_attention) {
  Placement placement;
  placement.percents = parse_percents(percents);
  placement.gpu_batch_size = gpu_batch_size;
  placement.num_gpu_batches = num_gpu_batches;
  placement.cpu_attention = cpu_attention;
  return placement;
}

Workload workload_of(std::int64_t prompt_len, std::int64_t gen_len, std::int64_t requests) {
  return {.max_prompt_len = prompt_len,
          .max_gen_len = gen_len,
          .max_total_len = prompt_len + gen_len,
          .num_requests = requests};
}

const SimulatedLane& lane(const Simulation& run, LaneKind kind) { return run.lanes[lane_index(kind)]; }

// ---- Runs whose time can be worked out.

/// Everything on the GPU: the gpu lane works without a gap, and its time is the sum of its steps.
TEST(Simulate, AResidentModelTakesTheTimeOfItsProducts) {
  const ModelSpec spec = opt_spec(4, 256, 4, 1000);
  const RunShape shape = shape_of(spec, placed({100, 0, 100, 0, 100, 0}, 2, 1, false), workload_of(8, 5, 2));
  HardwareProfile hardware = plain_machine();
  hardware.gpu.products = {{.rows = 1, .tflop_per_sec = 0.001}};  // at every number of rows
  hardware.gpu.copy_gb_per_sec = 1e9;
  hardware.gpu.attention_gb_per_sec = 1e9;
  hardware.gpu.attention_tflop_per_sec = 1e9;
  hardware.link = {{{1, 1e9}}, {{1, 1e9}}, 1};
  const std::vector<RequestLength> requests(2, {8, 5});
  const Simulation run = simulate(shape, hardware, requests);
  EXPECT_EQ(run.generated_tokens, 10);
  EXPECT_EQ(run.prompt_tokens, 16);
  ASSERT_EQ(run.passes.size(), 5U);
  const double layer = 12.0 * 256 * 256;
  const double head = 1000.0 * 256;
  const auto pass_sec = [&](double rows, double wanted) {
    return 2 * (rows * 4 * layer + wanted * head) / 1e9;
  };
  EXPECT_NEAR(run.passes[0].sec, pass_sec(16, 2), 1e-4 * run.passes[0].sec);
  EXPECT_NEAR(run.passes[3].sec, pass_sec(2, 2), 1e-4 * run.passes[3].sec);
  EXPECT_NEAR(run.prefill_sec, run.passes[0].sec, 1e-12);
  EXPECT_NEAR(run.total_sec, run.prefill_sec + run.decode_sec, 1e-12);
  EXPECT_NEAR(lane(run, LaneKind::kGpu).busy_sec, run.total_sec, 1e-4 * run.total_sec);
}

/// Everything streams: a decode pass takes the time of the weights over the link, whatever else is faster.
TEST(Simulate, AStreamedModelTakesTheTimeOfItsLink) {
  const ModelSpec spec = opt_spec(8, 256, 4, 1000);
  const RunShape shape = shape_of(spec, placed({0, 100, 100, 0, 100, 0}, 2, 1, false), workload_of(8, 9, 2));
  HardwareProfile hardware = plain_machine();
  hardware.gpu.products = {{.rows = 1, .tflop_per_sec = 1e6}};
  hardware.gpu.copy_gb_per_sec = 1e9;
  hardware.gpu.attention_gb_per_sec = 1e9;
  hardware.gpu.attention_tflop_per_sec = 1e9;
  const std::vector<RequestLength> requests(2, {8, 9});
  const Simulation run = simulate(shape, hardware, requests);
  std::int64_t streamed = 0;
  for (const UnitStream& unit : shape.units) streamed += unit.bytes();
  const double expected = static_cast<double>(streamed) / 10e9;
  for (std::size_t pass = 2; pass < run.passes.size(); ++pass)
    EXPECT_NEAR(run.passes[pass].sec, expected, 0.002 * expected) << pass;
  EXPECT_GT(lane(run, LaneKind::kH2d).busy_sec, 0.99 * run.total_sec);
  EXPECT_GT(lane(run, LaneKind::kGpu).stalled_sec, 0.9 * run.total_sec);
}

/// All weights but a streamed part are on the GPU, whose steps are nothing but overhead: beside copies they
/// take longer, in the share of the time that the copies take.
TEST(Simulate, OverheadOfTheGpuPassesMoreSlowlyBesideCopies) {
  const ModelSpec spec = opt_spec(8, 256, 4, 1000);
  const std::vector<RequestLength> requests(2, {8, 9});
  HardwareProfile hardware = plain_machine();
  hardware.gpu.products = {{.rows = 1, .tflop_per_sec = 1e6}};
  hardware.gpu.copy_gb_per_sec = 1e9;
  hardware.gpu.attention_gb_per_sec = 1e9;
  hardware.gpu.attention_tflop_per_sec = 1e9;
  hardware.overheads.gpu_usec = 10;
  const auto run = [&](int on_gpu, double beside_h2d_usec, double beside_d2h_usec) {
    HardwareProfile changed = hardware;
    changed.overheads.gpu_beside_h2d_usec = beside_h2d_usec;
    changed.overheads.gpu_beside_d2h_usec = beside_d2h_usec;
    const auto percents = placed({on_gpu, 100 - on_gpu, 100, 0, 100, 0}, 2, 1, false);
    return simulate(shape_of(spec, percents, workload_of(8, 9, 2)), changed, requests);
  };
  const double resident = run(100, 0, 0).total_sec;
  EXPECT_DOUBLE_EQ(run(100, 40, 40).total_sec, resident) << "nothing is copied";
  const Simulation streamed = run(60, 0, 0);
  EXPECT_DOUBLE_EQ(run(60, 10, 10).total_sec, streamed.total_sec) << "as alone";
  EXPECT_DOUBLE_EQ(run(60, 0, 40).total_sec, streamed.total_sec) << "results come by the urgent lane";
  // What the gpu lane does while a copy runs takes four times as long; a copy takes as long as ever.
  const Simulation slowed = run(60, 40, 0);
  const double copies = lane(slowed, LaneKind::kH2d).busy_sec;
  const double gpu = lane(streamed, LaneKind::kGpu).busy_sec;
  EXPECT_NEAR(copies, lane(streamed, LaneKind::kH2d).busy_sec, 0.01 * copies) << "and one for the next pass";
  const double more = lane(slowed, LaneKind::kGpu).busy_sec - gpu;
  EXPECT_GT(more, 0.1 * gpu);
  EXPECT_LE(more, 0.75 * copies + 1e-9) << "of each second beside copies a quarter is progress";
}

TEST(Simulate, WeightsOnDiskTakeTheTimeOfTheDisk) {
  const ModelSpec spec = opt_spec(8, 256, 4, 1000);
  const RunShape shape = shape_of(spec, placed({0, 0, 100, 0, 100, 0}, 2, 1, false), workload_of(8, 9, 2));
  HardwareProfile hardware = plain_machine();
  hardware.gpu.products = {{.rows = 1, .tflop_per_sec = 1e6}};
  const Simulation run = simulate(shape, hardware, std::vector<RequestLength>(2, {8, 9}));
  std::int64_t streamed = 0;
  for (const UnitStream& unit : shape.units) streamed += unit.disk_bytes;
  const double expected = static_cast<double>(streamed) / 1e9;
  for (std::size_t pass = 2; pass < run.passes.size(); ++pass)
    EXPECT_NEAR(run.passes[pass].sec, expected, 0.002 * expected) << pass;
}

TEST(Simulate, WithTwoGpuBatchesTheCpuAndTheGpuOverlap) {
  const ModelSpec spec = opt_spec(8, 256, 4, 1000);
  HardwareProfile hardware = plain_machine();
  hardware.cpu.attention = {{KvFormat::kF16, 4, 0.1, 0}};
  hardware.gpu.products = {{.rows = 1, .tflop_per_sec = 0.0005}};
  const std::vector<RequestLength> requests(8, {300, 17});
  const auto decode_sec = [&](std::int64_t size, std::int64_t batches) {
    const RunShape shape =
        shape_of(spec, placed({100, 0, 0, 100, 100, 0}, size, batches, true), workload_of(300, 17, 8));
    const Simulation run = simulate(shape, hardware, requests);
    return std::array{run.decode_sec, lane(run, LaneKind::kCpu).busy_sec, lane(run, LaneKind::kGpu).busy_sec};
  };
  const auto one = decode_sec(8, 1);
  const auto two = decode_sec(4, 2);
  EXPECT_NEAR(two[1], one[1], 0.01 * one[1]) << "the same KV is read";
  EXPECT_LT(two[0], 0.8 * one[0]);
  EXPECT_LT(two[0], 1.2 * std::max(two[1], two[2])) << "either works nearly all the time";
}

// ---- What holds of every run.

struct Case {
  ModelSpec spec;
  Placement placement;
  Workload work;
  std::vector<RequestLength> requests;
  HardwareProfile hardware;
};

Case random_case(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto pick = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  const auto rate = [&](double low, double high) {
    return low * std::pow(high / low, std::uniform_real_distribution<double>(0, 1)(random));
  };
  Case c;
  const std::int64_t heads = pick(1, 4);
  c.spec = opt_spec(pick(1, 6), heads * 64, heads, 500);
  const auto share = [&] {
    const int gpu = static_cast<int>(pick(0, 4)) * 25;
    return std::array{gpu, static_cast<int>(pick(0, (100 - gpu) / 25)) * 25};
  };
  const auto w = share(), k = share(), a = share();
  c.placement = placed({w[0], w[1], k[0], k[1], a[0], a[1]}, pick(1, 4), pick(1, 3), pick(0, 1) == 1);
  c.placement.mixing = pick(0, 3) > 0;
  c.placement.prefetch_depth = pick(2, 4);
  c.placement.prefetch = seed % 4 != 3;
  c.placement.max_tokens_per_gpu_batch = pick(16, 400);
  for (std::int64_t i = pick(1, 12); i > 0; --i) {
    c.requests.push_back({pick(1, 300), pick(0, 12)});
    c.work.add_request(c.requests.back().prompt_len, c.requests.back().gen_len);
  }
  c.work.max_total_len = std::max(c.work.max_total_len, c.work.max_prompt_len);
  HardwareProfile& h = c.hardware;
  h.link.h2d = {{64, rate(0.1, 10)}, {1024, rate(0.2, 20)}};
  h.link.d2h = {{64, rate(0.1, 10)}, {1024, rate(0.2, 20)}};
  h.gpu.products = {{.rows = 1, .tflop_per_sec = rate(0.001, 1)},
                    {.rows = 128, .tflop_per_sec = rate(0.05, 50)}};
  h.gpu.copy_gb_per_sec = rate(1, 1000);
  h.gpu.attention_gb_per_sec = rate(0.5, 500);
  h.gpu.attention_tflop_per_sec = rate(0.01, 100);
  h.cpu.attention = {{KvFormat::kF16, 4, rate(0.1, 100), 0}};
  h.disk.read = {{1, 1024, rate(0.05, 5)}};
  h.disk.write = {{1, 1024, rate(0.05, 5)}};
  h.beside = {{LaneKind::kH2d, LaneKind::kD2h, rate(0.3, 1)}, {LaneKind::kGpu, LaneKind::kCpu, rate(0.3, 1)}};
  h.beside_attention = {{4, rate(0.3, 1), rate(0.3, 1), rate(0.3, 1)}};
  return c;
}

constexpr std::uint64_t kSeeds = 300;

TEST(SimulateProperty, TimesAreOrderedAndLanesNeverWorkLongerThanTheRun) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(seed);
    const Case c = random_case(seed);
    const RunShape shape = shape_of(c.spec, c.placement, c.work);
    ScheduleChecker checker(shape);
    std::array<std::int64_t, kNumLanes> bytes{};
    std::array<double, kNumLanes> busy{};
    double end = 0;
    std::size_t schedules = 0;
    const Simulation run =
        simulate(shape, c.hardware, c.requests, {},
                 [&](const Schedule& schedule, const Pass* pass, const std::vector<StepTime>& times) {
                   checker.add(schedule, pass, &times);
                   ++schedules;
                   for (std::size_t i = 0; i < times.size(); ++i) {
                     ASSERT_LE(times[i].start_sec, times[i].end_sec);
                     bytes[lane_index(schedule.steps[i].lane)] += schedule.steps[i].bytes;
                     busy[lane_index(schedule.steps[i].lane)] += times[i].end_sec - times[i].start_sec;
                     end = std::max(end, times[i].end_sec);
                   }
                 });
    EXPECT_TRUE(checker.violations().empty()) << checker.violations().front();
    EXPECT_EQ(schedules, run.passes.size() + 1);
    EXPECT_GT(run.total_sec, 0);
    std::int64_t generated = 0;
    std::int64_t prompt = 0;
    for (const RequestLength& request : c.requests) {
      generated += request.gen_len;
      prompt += request.prompt_len;
    }
    EXPECT_EQ(run.generated_tokens, generated);
    EXPECT_EQ(run.prompt_tokens, prompt);
    EXPECT_NEAR(run.prefill_sec + run.decode_sec, run.total_sec, 1e-9 * run.total_sec);
    for (std::size_t i = 0; i < kNumLanes; ++i) {
      EXPECT_LE(run.lanes[i].busy_sec + run.lanes[i].stalled_sec, run.total_sec * (1 + 1e-9))
          << lane_name(static_cast<LaneKind>(i));
      EXPECT_LE(busy[i], end * (1 + 1e-9));
      EXPECT_LE(run.lanes[i].bytes, bytes[i]);
    }
  }
}

TEST(SimulateProperty, AFasterMachineIsNotSlower) {
  // Lanes that take their steps in order after fixed waits are a max-plus system: without shares, shorter
  // steps never end later.
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(seed);
    Case c = random_case(seed);
    c.hardware.beside.clear();
    c.hardware.beside_attention.clear();
    const RunShape shape = shape_of(c.spec, c.placement, c.work);
    const double before = simulate(shape, c.hardware, c.requests).total_sec;
    const std::vector<std::function<void(HardwareProfile&)>> changes = {
        [](HardwareProfile& h) {
          for (auto& r : h.link.d2h) r.gb_per_sec *= 2;
        },
        [](HardwareProfile& h) {
          for (auto& r : h.gpu.products) r.tflop_per_sec *= 2;
        },
        [](HardwareProfile& h) {
          h.gpu.attention_gb_per_sec *= 2;
          h.gpu.attention_tflop_per_sec *= 2;
        },
        [](HardwareProfile& h) { h.cpu.attention[0].gb_per_sec *= 2; },
        [](HardwareProfile& h) { h.disk.read[0].gb_per_sec *= 2; },
        [](HardwareProfile& h) { h.disk.write[0].gb_per_sec *= 2; },
        [](HardwareProfile& h) {
          for (auto& r : h.link.h2d) r.gb_per_sec *= 2;
        },
        [](HardwareProfile& h) {
          h.overheads = {0, 0, 0, 0, 0};
        }};
    for (std::size_t i = 0; i < changes.size(); ++i) {
      HardwareProfile faster = c.hardware;
      changes[i](faster);
      // Where bulk and urgent transfers share a link, an earlier start of the one may delay the other.
      EXPECT_LE(simulate(shape, faster, c.requests).total_sec, before * 1.02) << "change " << i;
    }
  }
}

TEST(SimulateProperty, TheSamePlacementWithMoreOfItOnFasterTiersNeedsNoMoreLinkBytes) {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    Case c = random_case(seed);
    double last = 1e300;
    for (const int gpu : {0, 50, 100}) {
      c.placement.percents.weights = {{gpu, 100 - gpu, 0}};
      const Simulation run = simulate(shape_of(c.spec, c.placement, c.work), c.hardware, c.requests);
      const auto bytes = static_cast<double>(lane(run, LaneKind::kH2d).bytes);
      EXPECT_LE(bytes, last);
      last = bytes;
    }
  }
}

// Prompts that are cut over many passes, and passes that hold no row of a request, are part of its time.
TEST(Simulate, TheLongestRequestIsThatOfThePassesPlayedByHand) {
  const ModelSpec spec = opt_spec(2, 256, 4, 1024);
  std::vector<DrivenRequest> requests;
  for (std::int64_t i = 0; i < 12; ++i) requests.push_back({40 + 97 * (i % 5), 1 + 7 * (i % 3)});
  std::vector<RequestLength> lengths;
  Workload work;
  for (const DrivenRequest& r : requests) {
    lengths.push_back({r.prompt_len, r.gen_len});
    work.add_request(r.prompt_len, r.gen_len);
  }
  double least = 1e9;
  double most = 0;
  for (const std::int64_t max_tokens : {64, 8192}) {
    for (const bool mixing : {true, false}) {
      Placement placement = placed({50, 50, 0, 100, 0, 100}, 4, 2, false);
      placement.max_tokens_per_gpu_batch = max_tokens;
      placement.mixing = mixing;
      const RunShape shape = shape_of(spec, placement, work);
      const Simulation run = simulate(shape, plain_machine(), lengths);
      struct Seated {
        double began_sec = 0;
        std::int64_t prompt_len = 0, left = 0;
      };
      std::vector<Seated> seats(8);
      std::vector<DrivenRequest> queue = requests;
      PassDriver driver(shape, requests);
      double now = 0;
      double longest = 0;
      for (const SimulatedPass& played : run.passes) {
        const Pass& pass = driver.compose();
        for (const Admission& admission : pass.admissions) {
          const DrivenRequest& r = queue[static_cast<std::size_t>(admission.waiting)];
          seats[static_cast<std::size_t>(admission.seat)] = {now, r.prompt_len, r.gen_len};
        }
        for (auto it = pass.admissions.rbegin(); it != pass.admissions.rend(); ++it)
          queue.erase(queue.begin() + it->waiting);
        now += played.sec;
        for (const Segment& segment : pass.segments) {
          Seated& seat = seats[static_cast<std::size_t>(segment.seat)];
          if (segment.first_kv + segment.num_tokens < seat.prompt_len) continue;
          if (--seat.left == 0) longest = std::max(longest, now - seat.began_sec);
        }
        driver.advance();
      }
      EXPECT_TRUE(driver.done());
      EXPECT_NEAR(run.longest_request_sec, longest, 1e-9 * now) << max_tokens << " tokens, mixing " << mixing;
      least = std::min(least, longest);
      most = std::max(most, longest);
    }
  }
  EXPECT_GT(most, 1.2 * least) << "the shapes hardly differ: nothing was shown";
}

TEST(Simulate, RefusesARequestThatNoSeatHolds) {
  const ModelSpec spec = opt_spec(2, 64, 1, 100);
  const RunShape shape = shape_of(spec, placed({100, 0, 100, 0, 100, 0}, 1, 1, false), workload_of(8, 5, 1));
  const std::vector<RequestLength> requests = {{200, 5}};
  EXPECT_EQ(sluice::testing::error_of([&] { simulate(shape, HardwareProfile{}, requests); }).code(),
            Code::kInvalidArgument);
}

// ---- FlexGen's largest published run, in time.

TEST(SimulateSpeed, AWholeGenerationOfOpt175bTakesLessThanASecond) {
  const ModelSpec spec = opt_spec(96, 12288, 96);
  DeviceTraits traits = test_traits();
  traits.activation_dtype = DType::kF16;
  traits.mlp_rows = 2048;
  traits.weight_piece_bytes = 32_MiB;
  const RunShape shape =
      shape_of(spec, placed({0, 50, 0, 0, 0, 100}, 32, 8, true), workload_of(512, 32, 256), traits);
  const HardwareProfile hardware = find_builtin_hardware("t4-208gb").value();
  const std::vector<RequestLength> requests(256, {512, 32});
  const auto start = std::chrono::steady_clock::now();
  const Simulation run = simulate(shape, hardware, requests);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  std::int64_t steps = 0;
  for (const SimulatedLane& each : run.lanes) steps += each.steps;
  RecordProperty("steps", std::to_string(steps));
  RecordProperty("milliseconds", std::to_string(1000 * took.count()));
  std::printf("%lld steps in %.0f ms: prefill %.0f s, decode %.0f s, %.3f tokens/s\n",
              static_cast<long long>(steps), 1000 * took.count(), run.prefill_sec, run.decode_sec,
              run.tokens_per_sec());
  EXPECT_EQ(run.generated_tokens, 256 * 32);
#ifdef NDEBUG
  EXPECT_LT(took.count(), 1.0);
#endif
}

}  // namespace
}  // namespace sluice::policy
