// The engine on a CUDA device: golden log-probs, placements that never change the answer, batch invariance,
// and poisoned memory with random delays on every lane.
#include <chrono>
#include <cmath>
#include <thread>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/sampling/philox.h"
#include "kernels/device/device.h"
#include "tests/e2e/golden.h"
#include "tests/e2e/lane_bytes.h"
#include "tests/e2e/small_model.h"
#include "tests/support/error_of.h"

namespace sluice {
namespace {

using kernels::BatchInvariance;
using offload::Request;
using offload::Result;
using policy::Placement;
using ::testing::AllOf;
using testing::Golden;
using ::testing::HasSubstr;
using testing::RunOutcome;

// What fp16 activations leave of the reference's fp32 (issue's limits for the golden models).
constexpr double kWorstLogprobError = 8e-2;
constexpr double kMeanLogprobError = 4e-3;
constexpr double kGap = 2e-2;  // of the two most likely tokens: below, either may be chosen

class Cuda : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!kernels::cuda_device_present()) GTEST_SKIP() << kernels::cuda_devices_text();
  }
};

RunOutcome run_on_cuda(const offload::ModelSource& source, const Placement& placement,
                       const std::vector<Request>& requests, const offload::RunHooks* hooks = nullptr,
                       BatchInvariance invariance = BatchInvariance::kOff) {
  return testing::run_requests(
      source, placement, requests, nullptr, hooks, 2,
      {.device = {.kind = offload::DeviceChoice::Kind::kCuda}, .batch_invariance = invariance});
}

class CudaGolden : public Cuda,
                   public ::testing::WithParamInterface<std::tuple<Golden, std::vector<int>, bool>> {};

TEST_P(CudaGolden, MatchesTransformers) {
  const auto& [golden, percents, cpu_attention] = GetParam();
  const RunOutcome outcome =
      run_on_cuda(testing::model(golden.checkpoint), testing::placed(percents, 4, 2, cpu_attention),
                  testing::golden_requests(golden));
  EXPECT_TRUE(outcome.violations.empty()) << outcome.violations.front();
  testing::expect_golden(
      golden, outcome.results,
      {.worst_logprob_error = kWorstLogprobError, .mean_logprob_error = kMeanLogprobError, .top2_gap = kGap});
}

INSTANTIATE_TEST_SUITE_P(Opt, CudaGolden,
                         ::testing::Combine(::testing::ValuesIn(testing::kOptGoldens),
                                            ::testing::Values(std::vector<int>{100, 0, 100, 0, 100, 0},
                                                              std::vector<int>{0, 50, 0, 100, 0, 100}),
                                            ::testing::Bool()));

/// Greedy requests that also want the two most likely tokens, so that a near tie can be told from an error.
std::vector<Request> greedy_requests(std::int64_t vocab_size) {
  std::vector<Request> requests = testing::ragged_requests(vocab_size);
  for (Request& request : requests) {
    request.sampling = {};
    request.want_logprobs = true;
    request.num_top_logprobs = 2;
  }
  return requests;
}

/// The first difference that rounding does not excuse; empty if there is none.
std::string first_real_difference(std::span<const Result> expected, std::span<const Result> found) {
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const Result& a = expected[i];
    const Result& b = found[i];
    for (std::size_t t = 0; t < std::min(a.prompt_logprobs.size(), b.prompt_logprobs.size()); ++t) {
      if (std::abs(a.prompt_logprobs[t] - b.prompt_logprobs[t]) > kWorstLogprobError)
        return fmt::format("request {} prompt token {}: log-prob {} and {}", i, t, a.prompt_logprobs[t],
                           b.prompt_logprobs[t]);
    }
    const std::size_t common = std::min(a.token_ids.size(), b.token_ids.size());
    std::size_t t = 0;
    for (; t < common && a.token_ids[t] == b.token_ids[t]; ++t) {
      if (std::abs(a.logprobs[t].logprob - b.logprobs[t].logprob) > kWorstLogprobError)
        return fmt::format("request {} token {}: log-prob {} and {}", i, t, a.logprobs[t].logprob,
                           b.logprobs[t].logprob);
    }
    if (t == common && a.token_ids.size() == b.token_ids.size()) continue;
    if (t == common)
      return fmt::format("request {}: {} and {} tokens", i, a.token_ids.size(), b.token_ids.size());
    const double gap = a.logprobs[t].top[0].logprob - a.logprobs[t].top[1].logprob;
    if (gap > kGap)
      return fmt::format("request {} token {}: {} and {}, the gap is {}", i, t, a.token_ids[t],
                         b.token_ids[t], gap);
  }
  return {};
}

const std::vector<std::vector<int>>& placements() {
  static const std::vector<std::vector<int>> all = {
      {100, 0, 100, 0, 100, 0}, {0, 100, 100, 0, 100, 0}, {100, 0, 0, 100, 100, 0}, {0, 100, 0, 100, 100, 0},
      {0, 0, 100, 0, 100, 0},   {100, 0, 0, 0, 100, 0},   {50, 50, 100, 0, 100, 0}, {100, 0, 50, 50, 100, 0},
      {100, 0, 0, 50, 100, 0},  {100, 0, 100, 0, 0, 100}, {100, 0, 100, 0, 0, 0},   {0, 100, 0, 100, 0, 100},
      {0, 0, 0, 0, 0, 0},       {30, 30, 35, 30, 34, 33}, {10, 60, 5, 55, 0, 50},
  };
  return all;
}

class CudaPlacement : public Cuda,
                      public ::testing::WithParamInterface<std::tuple<std::size_t, int, bool>> {};

TEST_P(CudaPlacement, GivesTheTokensOfAllOnTheGpu) {
  const auto& [index, num_gpu_batches, cpu_attention] = GetParam();
  const ModelSpec spec = testing::small_spec_with_eos();
  const std::vector<Request> requests = greedy_requests(spec.vocab_size);
  static const RunOutcome resident =
      run_on_cuda(testing::synthetic(spec), testing::placed({100, 0, 100, 0, 100, 0}, 2, 1, false), requests);
  Placement placement = testing::placed(placements()[index], 2, num_gpu_batches, cpu_attention);
  placement.max_tokens_per_gpu_batch = 150;
  const RunOutcome outcome = run_on_cuda(testing::synthetic(spec), placement, requests);
  EXPECT_TRUE(outcome.violations.empty()) << outcome.violations.front();
  EXPECT_EQ(first_real_difference(resident.results, outcome.results), "");
  EXPECT_EQ(testing::counted_lane_bytes(outcome), testing::expected_lane_bytes(outcome));
}

INSTANTIATE_TEST_SUITE_P(Small, CudaPlacement,
                         ::testing::Combine(::testing::Range(std::size_t{0}, placements().size()),
                                            ::testing::Values(1, 2, 3), ::testing::Bool()));

TEST_F(Cuda, BatchInvariantResultsDoNotDependOnTheBlock) {
  const ModelSpec spec = testing::small_spec_with_eos();
  const std::vector<Request> requests = testing::ragged_requests(spec.vocab_size);
  const auto run = [&](std::int64_t gpu_batch_size, std::int64_t num_gpu_batches,
                       const std::vector<int>& percents) {
    return run_on_cuda(testing::synthetic(spec),
                       testing::placed(percents, gpu_batch_size, num_gpu_batches, false), requests, nullptr,
                       BatchInvariance::kOn);
  };
  const RunOutcome one_by_one = run(1, 1, {100, 0, 100, 0, 100, 0});
  for (const auto& [size, batches] : {std::pair{2, 1}, {5, 2}, {3, 3}, {14, 1}}) {
    SCOPED_TRACE(fmt::format("{} x {}", size, batches));
    EXPECT_EQ(
        testing::first_difference(one_by_one.results, run(size, batches, {100, 0, 100, 0, 100, 0}).results),
        "");
    EXPECT_EQ(
        testing::first_difference(one_by_one.results, run(size, batches, {20, 40, 30, 30, 0, 50}).results),
        "");
  }
}

// Chunks of a prompt down to one row, which a small bound on the tokens of a pass leaves.
TEST_F(Cuda, BatchInvariantResultsDoNotDependOnWherePromptsAreCut) {
  const ModelSpec spec = testing::small_spec_with_eos();
  std::vector<Request> requests = testing::ragged_requests(spec.vocab_size);
  const std::vector<std::int64_t> bounds = {5, 64, 65, 150};
  for (const std::int64_t bound : bounds) {
    Request request;  // cut after `bound` rows, if it is alone, and one row is left
    request.prompt_ids = testing::prompt_of(bound + 1, spec.vocab_size, static_cast<std::uint32_t>(bound));
    request.max_new_tokens = 4;
    request.want_logprobs = true;
    request.want_prompt_logprobs = true;
    requests.push_back(std::move(request));
  }
  const auto run = [&](std::int64_t gpu_batch_size, std::int64_t num_gpu_batches, std::int64_t max_tokens) {
    Placement placement = testing::placed({100, 0, 100, 0, 100, 0}, gpu_batch_size, num_gpu_batches, false);
    placement.max_tokens_per_gpu_batch = max_tokens;
    return run_on_cuda(testing::synthetic(spec), placement, requests, nullptr, BatchInvariance::kOn);
  };
  const RunOutcome uncut = run(1, 1, 8192);
  for (const std::int64_t bound : bounds) {
    for (const auto& [size, batches] : {std::pair{1, 1}, {2, 1}, {5, 2}}) {
      SCOPED_TRACE(fmt::format("{} x {}, {} tokens", size, batches, bound));
      const RunOutcome cut = run(size, batches, bound);
      EXPECT_TRUE(cut.violations.empty()) << cut.violations.front();
      EXPECT_EQ(testing::first_difference(uncut.results, cut.results), "");
    }
  }
}

/// One step in six sleeps up to 2 ms.
offload::StepHook random_delays(std::uint32_t seed) {
  return [seed](const policy::Step& step) {
    const PhiloxCounter bits = philox4x32_10(
        {static_cast<std::uint32_t>(step.seq), static_cast<std::uint32_t>(step.lane), 0, 0}, {seed, 0});
    if (bits[0] % 6 == 0) std::this_thread::sleep_for(std::chrono::microseconds(bits[1] % 2000));
  };
}

class CudaStress : public Cuda,
                   public ::testing::WithParamInterface<std::tuple<std::size_t, std::uint32_t>> {};

TEST_P(CudaStress, DelaysAndPoisonChangeNothing) {
  const auto& [index, seed] = GetParam();
  struct Setting {
    std::vector<int> percents;
    std::int64_t num_gpu_batches;
    bool cpu_attention;
  };
  const std::vector<Setting> settings = {
      {{100, 0, 100, 0, 100, 0}, 2, false}, {{0, 100, 0, 100, 0, 100}, 2, true},
      {{0, 100, 0, 100, 0, 100}, 3, false}, {{0, 0, 0, 0, 0, 0}, 3, true},
      {{30, 30, 35, 30, 34, 33}, 3, false}, {{20, 40, 10, 40, 0, 50}, 2, true},
  };
  const Setting& setting = settings.at(index);
  const ModelSpec spec = testing::small_spec_with_eos();
  const std::vector<Request> requests = greedy_requests(spec.vocab_size);
  Placement placement = testing::placed(setting.percents, 2, setting.num_gpu_batches, setting.cpu_attention);
  placement.max_tokens_per_gpu_batch = 150;
  const RunOutcome quiet = run_on_cuda(testing::synthetic(spec), placement, requests);
  offload::RunHooks hooks;
  hooks.poison = offload::Poison::kOn;
  hooks.before_step = random_delays(seed);
  const RunOutcome outcome = run_on_cuda(testing::synthetic(spec), placement, requests, &hooks);
  EXPECT_TRUE(outcome.violations.empty()) << outcome.violations.front();
  EXPECT_EQ(testing::first_difference(quiet.results, outcome.results), "");
}

INSTANTIATE_TEST_SUITE_P(Small, CudaStress,
                         ::testing::Combine(::testing::Range(std::size_t{0}, std::size_t{6}),
                                            ::testing::Values(1U, 2U)));

// ---- Failures. tests/e2e/fake_device_test.cc has those that need no device.

offload::EngineOptions options_on_cuda(const std::vector<int>& percents, bool cpu_attention = false) {
  offload::EngineOptions options;
  options.device.kind = offload::DeviceChoice::Kind::kCuda;
  options.placement = testing::placed(percents, 2, 2, cpu_attention);
  options.workload = {.max_prompt_len = 16, .max_gen_len = 64, .max_total_len = 80, .num_requests = 4};
  options.num_threads = 2;
  return options;
}

Request request_of(std::int64_t max_new_tokens) {
  Request request;
  request.prompt_ids = testing::prompt_of(10, testing::small_spec().vocab_size, 3);
  request.max_new_tokens = max_new_tokens;
  return request;
}

using sluice::testing::error_of;

/// The device itself, but for its allocations.
class DeviceWithoutMemory final : public kernels::Device {
 public:
  explicit DeviceWithoutMemory(std::unique_ptr<kernels::Device> device) : device_(std::move(device)) {}
  kernels::DeviceKind kind() const override { return device_->kind(); }
  std::string description() const override { return device_->description(); }
  bool has_own_memory() const override { return device_->has_own_memory(); }
  std::int64_t free_bytes() const override { return device_->free_bytes(); }
  /// More than any GPU has: the refusal is the device's own.
  kernels::DeviceMemory allocate(std::int64_t bytes) override {
    return device_->allocate(bytes + (std::int64_t{1} << 50));
  }
  std::unique_ptr<kernels::DeviceResource> pin(std::span<std::byte> host) override {
    return device_->pin(host);
  }
  std::unique_ptr<kernels::Stream> make_stream(kernels::StreamPriority priority,
                                               std::span<std::byte> workspace) override {
    return device_->make_stream(priority, workspace);
  }

 private:
  const std::unique_ptr<kernels::Device> device_;
};

const std::vector<int> kMixed = {30, 30, 35, 30, 34, 33};

/// What came before has not hurt the device.
void expect_device_works() {
  offload::Engine engine(testing::synthetic(testing::small_spec()), nullptr, options_on_cuda(kMixed));
  engine.submit(request_of(3));
  int results = 0;
  engine.run({}, [&](const Result&) { ++results; });
  EXPECT_EQ(results, 1);
}

TEST_F(Cuda, ARefusedAllocationReportsBothNumbersThePlanAndTheRemedy) {
  offload::EngineOptions options = options_on_cuda({100, 0, 100, 0, 100, 0});
  const auto hooks = std::make_shared<offload::RunHooks>();
  hooks->wrap_device = [](std::unique_ptr<kernels::Device> device) {
    return std::make_unique<DeviceWithoutMemory>(std::move(device));
  };
  options.hooks = hooks;
  const Error e =
      error_of([&] { offload::Engine(testing::synthetic(testing::small_spec()), nullptr, options); });
  EXPECT_EQ(e.code(), Code::kOutOfMemory);
  EXPECT_THAT(e.what(),
              AllOf(HasSubstr("gpu memory: need "), HasSubstr(" are free on "), HasSubstr("(planned: gpu: "),
                    HasSubstr(" = weights "), HasSubstr("; lower --gpu-memory")));
  expect_device_works();
}

// All weights of a 175-billion model; none of them is made before the refusal.
TEST_F(Cuda, APlacementAboveFreeMemoryIsRefusedWithBothNumbers) {
  ModelSpec spec = testing::small_spec();
  spec.num_layers = 96;
  spec.hidden_dim = spec.embed_dim = 12288;
  spec.ffn_dim = 49152;
  spec.num_heads = spec.num_kv_heads = 96;
  spec.head_dim = 128;
  offload::EngineOptions options = options_on_cuda({100, 0, 100, 0, 100, 0});
  for (const std::int64_t budget : {std::int64_t{-1}, std::int64_t{1} << 42}) {
    options.budget_bytes[Tier::kGpu] = budget;
    const Error e = error_of([&] { offload::Engine(testing::synthetic(spec), nullptr, options); });
    EXPECT_EQ(e.code(), Code::kOutOfMemory);
    EXPECT_THAT(e.what(), AllOf(HasSubstr("the placement needs 32"), HasSubstr(" GiB of GPU memory, but "),
                                HasSubstr(" are free; planned: gpu: "), HasSubstr("--percent")));
  }
}

TEST_F(Cuda, ADeviceThatDoesNotExistIsRefusedWithTheNumberOfThoseThatDo) {
  const Error e = error_of([] { (void)kernels::make_cuda_device(97); });
  EXPECT_EQ(e.code(), Code::kInvalidArgument);
  EXPECT_THAT(e.what(), AllOf(HasSubstr("no CUDA device 97; this machine has "), HasSubstr("cuda:N")));
}

TEST_F(Cuda, ADeviceFailureInMidRunNamesStepLayerAndPassAndKeepsWhatIsFinished) {
  for (const bool cpu_attention : {false, true}) {
    offload::EngineOptions options = options_on_cuda(kMixed, cpu_attention);
    const auto hooks = std::make_shared<offload::RunHooks>();
    hooks->before_step = [](const policy::Step& step) {
      if (step.pass == 12 && step.unit == 2 && step.kind == policy::StepKind::kPost)
        throw Error(Code::kDevice, "an illegal memory access was encountered", "see the driver's log");
    };
    options.hooks = hooks;
    std::vector<std::int64_t> finished;
    {
      offload::Engine engine(testing::synthetic(testing::small_spec()), nullptr, options);
      for (const std::int64_t length : {3, 60, 4}) engine.submit(request_of(length));
      const Error e =
          error_of([&] { engine.run({}, [&](const Result& result) { finished.push_back(result.index); }); });
      EXPECT_EQ(e.code(), Code::kDevice);
      EXPECT_THAT(e.what(), AllOf(HasSubstr("post of unit 2 (layer 1, pass 12)"),
                                  HasSubstr(": an illegal memory access"), HasSubstr("; see the driver")));
      EXPECT_THAT(finished, ::testing::ElementsAre(0, 2));
    }
    expect_device_works();
  }
}

TEST_F(Cuda, StoppingInAPassKeepsWhatIsFinished) {
  std::stop_source stop;
  offload::EngineOptions options = options_on_cuda(kMixed, true);
  const auto hooks = std::make_shared<offload::RunHooks>();
  hooks->before_step = [&](const policy::Step& step) {
    if (step.pass == 12 && step.kind == policy::StepKind::kPost) stop.request_stop();
  };
  options.hooks = hooks;
  std::vector<std::int64_t> finished;
  {
    offload::Engine engine(testing::synthetic(testing::small_spec()), nullptr, options);
    for (const std::int64_t length : {3, 60, 4}) engine.submit(request_of(length));
    const Error e = error_of([&] {
      engine.run(stop.get_token(), [&](const Result& result) { finished.push_back(result.index); });
    });
    EXPECT_EQ(e.code(), Code::kCancelled) << e.what();
    EXPECT_THROW(engine.run({}, [](const Result&) {}), Error) << "a stopped engine does not go on";
  }
  EXPECT_THAT(finished, ::testing::ElementsAre(0, 2));
  expect_device_works();
}

TEST_F(Cuda, ACancelledRequestLeavesTheOthersAlone) {
  const auto tokens_of_second = [](bool cancel) {
    offload::Engine engine(testing::synthetic(testing::small_spec()), nullptr,
                           options_on_cuda({100, 0, 100, 0, 100, 0}));
    Request first = request_of(60);
    int tokens = 0;
    first.on_token = [&](std::int32_t) {
      if (cancel && ++tokens == 5) engine.cancel(0);
    };
    engine.submit(std::move(first));
    engine.submit(request_of(20));
    std::vector<Result> results(2);
    engine.run({}, [&](Result result) {
      const auto index = static_cast<std::size_t>(result.index);
      results.at(index) = std::move(result);
    });
    EXPECT_EQ(results[0].finish_reason == offload::FinishReason::kCancelled, cancel);
    return results[1].token_ids.size();
  };
  EXPECT_EQ(tokens_of_second(false), 20U);
  EXPECT_EQ(tokens_of_second(true), 20U);
}

// A run may be another thread's than the construction, and the device is a property of threads.
TEST_F(Cuda, RunsOnAnotherThreadThanItWasMadeOn) {
  offload::Engine engine(testing::synthetic(testing::small_spec()), nullptr, options_on_cuda(kMixed));
  engine.submit(request_of(3));
  int results = 0;
  std::jthread([&] { engine.run({}, [&](const Result&) { ++results; }); }).join();
  EXPECT_EQ(results, 1);
}

}  // namespace
}  // namespace sluice
