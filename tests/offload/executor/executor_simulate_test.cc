// The prediction against the executor, on a virtual clock: the real executor runs whole generations over a
// fake device whose operations take scripted times. An operation begins on the clock when the one before it
// on its lane and all that it waits for have ended there, and it notices if one of these has not yet run.
// What the executor then needed in all is compared with what the simulation says.
#include <atomic>
#include <random>

#include <gtest/gtest.h>

#include "core/units.h"
#include "policy/simulate.h"
#include "policy/step_costs.h"
#include "tests/offload/executor/executor_test_support.h"
#include "tests/policy/pass_driver.h"
#include "tests/policy/shapes.h"

namespace sluice::offload {
namespace {

using executor_test::FakeAsyncDevice;
using executor_test::FakeAsyncStream;
using executor_test::FakeDeviceScript;
using executor_test::idle_io;
using policy::kNumLanes;
using policy::lane_index;
using policy::LaneKind;
using policy::Pass;
using policy::RequestLength;
using policy::RunShape;
using policy::Schedule;
using policy::Step;

constexpr std::size_t kMostSteps = 1 << 16;  // of a lane

/// Keeps the virtual clock of every lane.
class VirtualRunner : public StepRunner {
 public:
  explicit VirtualRunner(const FakeDeviceScript& script) : device_(script) {
    for (const LaneKind lane :
         {LaneKind::kH2d, LaneKind::kH2dUrgent, LaneKind::kD2h, LaneKind::kD2hUrgent, LaneKind::kGpu}) {
      streams_[lane_index(lane)] = device_.make_fake_stream();
    }
    for (auto& lane : end_sec_) {
      lane = std::vector<std::atomic<double>>(kMostSteps);
      for (auto& end : lane) end.store(-1);
      lane[0].store(0);
    }
    for (auto& lane : step_sec_) lane.resize(kMostSteps);
  }

  kernels::Stream* stream(LaneKind lane) override { return streams_[lane_index(lane)].get(); }
  std::int64_t run(const Step& step) override {
    FakeAsyncStream* stream = streams_[lane_index(step.lane)].get();
    if (stream == nullptr) {
      play(step);
    } else {
      stream->enqueue([this, &step] { play(step); });
    }
    return step.bytes;
  }
  void io_requests(const Step& step, std::vector<IoRequest>& /*out*/) override { play(step); }

  /// Before a schedule is submitted: what its steps take, and from when on they can begin.
  void script(const Schedule& schedule, const policy::StepCosts& costs, double submit_sec) {
    for (const Step& step : schedule.steps) {
      const auto seq = static_cast<std::size_t>(step.seq);
      ASSERT_LT(seq, kMostSteps);
      step_sec_[lane_index(step.lane)][seq] = {costs.seconds(step), submit_sec};
    }
  }
  double end_sec(LaneKind lane, std::int64_t seq) const {
    return end_sec_[lane_index(lane)][static_cast<std::size_t>(seq)].load();
  }
  double busy_sec(LaneKind lane, std::int64_t last_seq) const {
    double sum = 0;
    for (std::int64_t seq = 1; seq <= last_seq; ++seq)
      sum += step_sec_[lane_index(lane)][static_cast<std::size_t>(seq)].step_sec;
    return sum;
  }

  std::atomic<int> too_early{0};

 private:
  struct Scripted {
    double step_sec = 0, submit_sec = 0;
  };

  void play(const Step& step) {
    const std::size_t lane = lane_index(step.lane);
    const auto seq = static_cast<std::size_t>(step.seq);
    const Scripted& scripted = step_sec_[lane][seq];
    double start = std::max(scripted.submit_sec, end_of(step.lane, step.seq - 1));
    for (const policy::Wait& wait : step.wait_list()) start = std::max(start, end_of(wait.lane, wait.count));
    end_sec_[lane][seq].store(start + scripted.step_sec);
  }
  double end_of(LaneKind lane, std::int64_t seq) {
    const double end = end_sec(lane, seq);
    if (end < 0) ++too_early;
    return end;
  }

  FakeAsyncDevice device_;
  std::array<std::vector<std::atomic<double>>, kNumLanes> end_sec_;  // by seq
  std::array<std::vector<Scripted>, kNumLanes> step_sec_;
  std::array<std::unique_ptr<FakeAsyncStream>, kNumLanes> streams_;  // last: their work uses the above
};

struct Outcome {
  double total_sec = 0;
  std::vector<double> pass_sec;
  std::array<double, kNumLanes> busy_sec{};
};

/// The engine's loop (offload/engine.cc), with the virtual clock in place of its own.
Outcome run_on_virtual_clock(const RunShape& shape, const policy::HardwareProfile& hardware,
                             std::span<const Encoding> formats, const std::vector<RequestLength>& requests,
                             std::uint64_t seed) {
  std::vector<policy::testing::DrivenRequest> driven;
  for (const RequestLength& request : requests) driven.push_back({request.prompt_len, request.gen_len});
  policy::testing::PassDriver driver(shape, driven);
  policy::ScheduleBuilder builder(shape);
  const policy::Rates rates(hardware);
  const policy::ModelProducts products(shape.spec, formats);
  policy::StepCosts costs(shape, rates, products);
  VirtualRunner runner({.seed = seed, .jitter = std::chrono::microseconds(20)});
  Executor executor(runner, idle_io(), idle_io());
  struct Slot {
    Pass pass;
    Schedule schedule;
  };
  std::array<Slot, 2> slots;
  Schedule prologue;
  builder.build_prologue(prologue);
  runner.script(prologue, costs, 0);
  executor.submit(prologue);
  Outcome outcome;
  std::array<std::int64_t, kNumLanes> last_seq = prologue.last_seq;
  const auto latest_end = [&](const Schedule& schedule) {
    double end = 0;
    for (std::size_t i = 0; i < kNumLanes; ++i) {
      const auto lane = static_cast<LaneKind>(i);
      end = std::max(end, runner.end_sec(lane, schedule.last_seq[i]));
    }
    return end;
  };
  double now = 0;
  for (std::size_t number = 0; !driver.done(); ++number) {
    Slot& slot = slots[number % 2];
    if (number >= 2) {  // as finish_slot: nothing waits for the prologue by itself
      executor.wait_all(slot.schedule.last_seq);
      now = std::max({now, latest_end(prologue), latest_end(slot.schedule)});
    }
    slot.pass = driver.compose();
    costs.set_pass(slot.pass);
    builder.build_pass(slot.pass, slot.schedule);
    runner.script(slot.schedule, costs, now + rates.pass_overhead_sec());
    executor.submit(slot.schedule);
    for (std::size_t i = 0; i < kNumLanes; ++i)
      last_seq[i] = std::max(last_seq[i], slot.schedule.last_seq[i]);
    const std::int64_t results = last_seq[lane_index(LaneKind::kD2hUrgent)];
    executor.wait(LaneKind::kD2hUrgent, results);
    const double end =
        std::max(now + rates.pass_overhead_sec(), runner.end_sec(LaneKind::kD2hUrgent, results));
    outcome.pass_sec.push_back(end - outcome.total_sec);
    outcome.total_sec = now = end;
    driver.advance();
  }
  executor.wait_all(last_seq);
  EXPECT_TRUE(executor.status().ok()) << executor.status().message();
  EXPECT_EQ(runner.too_early.load(), 0) << "steps that ran before what they wait for";
  for (std::size_t i = 0; i < kNumLanes; ++i) {
    outcome.busy_sec[i] = runner.busy_sec(static_cast<LaneKind>(i), last_seq[i]);
  }
  return outcome;
}

struct Case {
  std::string name;
  std::vector<int> percents;
  std::int64_t gpu_batch_size, num_gpu_batches;
  bool cpu_attention;
  std::vector<RequestLength> requests;
  Encoding format = Encoding::kDense;  ///< of the decoder layers' matrices
  bool mixing = true;
  std::int64_t prefetch_depth = 2, max_tokens = 8192;
  KvFormat kv_format = KvFormat::kF16;
  bool prefetch = true;
};

/// A model in the case's format: what the matrices of its layers take, where a third of them is not zero.
struct Stored {
  std::vector<policy::TensorSize> sizes;
  std::vector<Encoding> formats;
};

Stored stored_as(const ModelSpec& spec, Encoding encoding) {
  Stored stored;
  for (const TensorSpec& tensor : model_tensors(spec)) {
    const bool of_layer = tensor.unit > 0 && tensor.unit < output_unit(spec) && !tensor.is_vector;
    const WeightFormat format{of_layer ? encoding : Encoding::kDense, DType::kF16};
    const ByteRange range = weight_byte_range(format, tensor.rows, tensor.cols);
    stored.sizes.push_back({tensor.unit, range.min + (range.max - range.min) / 3, tensor.is_vector});
    stored.formats.push_back(format.encoding);
  }
  return stored;
}

policy::Placement placement_of(const Case& c) {
  policy::Placement placement;
  placement.percents = policy::parse_percents(c.percents);
  placement.gpu_batch_size = c.gpu_batch_size;
  placement.num_gpu_batches = c.num_gpu_batches;
  placement.cpu_attention = c.cpu_attention;
  placement.mixing = c.mixing;
  placement.prefetch_depth = c.prefetch_depth;
  placement.prefetch = c.prefetch;
  placement.max_tokens_per_gpu_batch = c.max_tokens;
  placement.kv_format = c.kv_format;
  return placement;
}

RunShape shape_of(const Case& c, const ModelSpec& spec, const policy::DeviceTraits& traits) {
  policy::Workload work;
  for (const RequestLength& request : c.requests) work.add_request(request.prompt_len, request.gen_len);
  return policy::make_run_shape(spec, stored_as(spec, c.format).sizes, placement_of(c), work, traits);
}

std::vector<RequestLength> ragged(std::size_t count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<RequestLength> requests;
  for (std::size_t i = 0; i < count; ++i)
    requests.push_back(
        {static_cast<std::int64_t>(1 + random() % 300), static_cast<std::int64_t>(1 + random() % 14)});
  return requests;
}

const std::vector<Case> kCases = {
    {"resident", {100, 0, 100, 0, 100, 0}, 4, 1, false, std::vector<RequestLength>(4, {200, 12})},
    {"weights stream", {20, 80, 100, 0, 100, 0}, 4, 1, false, std::vector<RequestLength>(4, {200, 12})},
    {"weights and KV stream",
     {20, 80, 0, 100, 100, 0},
     4,
     2,
     false,
     std::vector<RequestLength>(8, {200, 12})},
    {"CPU attention", {20, 80, 0, 100, 100, 0}, 4, 2, true, std::vector<RequestLength>(8, {200, 12})},
    {"CPU attention, one batch",
     {20, 80, 0, 100, 0, 100},
     8,
     1,
     true,
     std::vector<RequestLength>(8, {200, 12})},
    {"weights on disk", {0, 40, 0, 100, 0, 100}, 3, 3, true, std::vector<RequestLength>(9, {150, 9})},
    {"everything on disk", {0, 0, 0, 0, 0, 0}, 2, 2, true, std::vector<RequestLength>(4, {150, 9})},
    {"split everywhere", {30, 40, 25, 50, 50, 25}, 4, 4, true, ragged(30, 1)},
    {"split everywhere, streamed", {30, 40, 25, 50, 50, 25}, 4, 4, false, ragged(30, 2)},
    {"ragged, refilled", {20, 80, 0, 100, 100, 0}, 3, 2, true, ragged(40, 3)},
    {"int4, CPU attention", {20, 80, 0, 100, 100, 0}, 4, 2, true, ragged(20, 4), Encoding::kInt4G64},
    {"bitmap, streamed", {0, 100, 50, 50, 0, 100}, 4, 2, false, ragged(20, 5), Encoding::kBitmap},
    {"Tiled-CSL on disk", {10, 20, 0, 60, 100, 0}, 3, 3, true, ragged(20, 6), Encoding::kTiledCsl},
    {"int8, not measured", {30, 70, 100, 0, 100, 0}, 6, 1, false, ragged(12, 7), Encoding::kInt8},
    {"prompts in chunks", {20, 80, 0, 100, 0, 100}, 3, 2, true, ragged(20, 8), Encoding::kDense, true, 2, 96},
    {"prefill apart", {20, 80, 0, 100, 100, 0}, 3, 2, true, ragged(24, 9), Encoding::kDense, false},
    {"four layers ahead",
     {0, 60, 0, 100, 100, 0},
     3,
     2,
     true,
     ragged(16, 10),
     Encoding::kBitmapInt4,
     true,
     4},
    {"KV of 32 bits on disk",
     {50, 50, 20, 30, 100, 0},
     3,
     2,
     true,
     ragged(16, 11),
     Encoding::kDense,
     true,
     2,
     8192,
     KvFormat::kF32},
    {.name = "no prefetch, CPU attention",
     .percents = {20, 80, 0, 100, 100, 0},
     .gpu_batch_size = 3,
     .num_gpu_batches = 3,
     .cpu_attention = true,
     .requests = ragged(24, 12),
     .prefetch = false},
    {.name = "no prefetch, disk",
     .percents = {10, 40, 20, 30, 0, 50},
     .gpu_batch_size = 3,
     .num_gpu_batches = 2,
     .cpu_attention = false,
     .requests = ragged(16, 13),
     .prefetch = false},
};

TEST(ExecutorSimulate, ThePredictionIsWithinTwoPercentOfTheExecutorOnAVirtualClock) {
  const ModelSpec spec = policy::testing::opt_spec(6, 512, 8, 2000);
  policy::DeviceTraits traits = policy::testing::test_traits();
  traits.weight_piece_bytes = 1_MiB;
  policy::HardwareProfile hardware;
  hardware.link.h2d = {{64, 8}, {1024, 24}};
  hardware.link.d2h = {{64, 6}, {1024, 20}};
  hardware.gpu.products = {{.rows = 1, .tflop_per_sec = 0.05}, {.rows = 256, .tflop_per_sec = 5}};
  hardware.cpu.attention = {{KvFormat::kF16, 4, 8, 0}};
  hardware.disk.read = {{1, 1024, 2}};
  hardware.disk.write = {{1, 1024, 1.5}};
  hardware.beside.clear();  // the virtual clock knows no shared rates
  hardware.overheads = {
      .gpu_usec = 20, .transfer_usec = 5, .cpu_usec = 20, .disk_usec = 50, .pass_usec = 100};
  hardware.gpu.products.push_back({Encoding::kInt4G64, policy::ProductKernel::kFused, 1, 0.15});
  hardware.gpu.products.push_back({Encoding::kInt4G64, policy::ProductKernel::kFused, 256, 3});
  hardware.gpu.products.push_back({Encoding::kBitmap, policy::ProductKernel::kFused, 1, 0.1});
  hardware.gpu.products.push_back({Encoding::kBitmap, policy::ProductKernel::kExpand, 256, 4});
  double worst = 0;
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    const RunShape shape = shape_of(c, spec, traits);
    const std::vector<Encoding> formats = stored_as(spec, c.format).formats;
    const Outcome outcome = run_on_virtual_clock(shape, hardware, formats, c.requests, 7);
    const policy::Simulation predicted = simulate(shape, hardware, c.requests, {.formats = formats});
    std::printf("  %-26s %+.2f %%\n", c.name.c_str(), 100 * (predicted.total_sec / outcome.total_sec - 1));
    ASSERT_EQ(outcome.pass_sec.size(), predicted.passes.size());
    EXPECT_NEAR(predicted.total_sec, outcome.total_sec, 0.02 * outcome.total_sec);
    worst = std::max(worst, std::abs(predicted.total_sec / outcome.total_sec - 1));
    for (const LaneKind lane : {LaneKind::kGpu, LaneKind::kCpu}) {
      EXPECT_NEAR(predicted.lanes[lane_index(lane)].busy_sec, outcome.busy_sec[lane_index(lane)],
                  1e-6 * outcome.total_sec);
    }
  }
  RecordProperty("worst_percent", std::to_string(100 * worst));
  std::printf("worst of %zu: %.2f %%\n", kCases.size(), 100 * worst);
}

/// A format's product rate is in the prediction: with another one the same run is another length.
TEST(ExecutorSimulate, AFormatThatIsTakenForDenseIsNoticed) {
  const ModelSpec spec = policy::testing::opt_spec(6, 512, 8, 2000);
  Case c = kCases[0];
  c.format = Encoding::kInt4G64;
  const RunShape shape = shape_of(c, spec, policy::testing::test_traits());
  const std::vector<Encoding> formats = stored_as(spec, c.format).formats;
  policy::HardwareProfile hardware;
  hardware.beside.clear();
  hardware.gpu.products = {{.rows = 1, .tflop_per_sec = 0.01}, {.rows = 256, .tflop_per_sec = 1}};
  hardware.gpu.products.push_back({Encoding::kInt4G64, policy::ProductKernel::kFused, 1, 0.012});
  hardware.gpu.products.push_back({Encoding::kInt4G64, policy::ProductKernel::kFused, 256, 1.2});
  const double measured = run_on_virtual_clock(shape, hardware, formats, c.requests, 3).total_sec;
  EXPECT_NEAR(simulate(shape, hardware, c.requests, {.formats = formats}).total_sec, measured,
              0.02 * measured);
  EXPECT_GT(simulate(shape, hardware, c.requests).total_sec, 1.02 * measured);
}

/// The comparison sees an error of a few percent in one figure.
TEST(ExecutorSimulate, AWrongRateIsNoticed) {
  const Case& c = kCases[3];
  const ModelSpec spec = policy::testing::opt_spec(6, 512, 8, 2000);
  const RunShape shape = shape_of(c, spec, policy::testing::test_traits());
  policy::HardwareProfile hardware;
  hardware.beside.clear();
  hardware.cpu.attention = {{KvFormat::kF16, 4, 0.5, 0}};
  const double measured = run_on_virtual_clock(shape, hardware, {}, c.requests, 3).total_sec;
  hardware.cpu.attention[0].gb_per_sec = 0.47;
  EXPECT_GT(simulate(shape, hardware, c.requests).total_sec, 1.02 * measured);
}

}  // namespace
}  // namespace sluice::offload
