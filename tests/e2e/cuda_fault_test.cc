// What fails on a CUDA device, at start and in the middle of a run: the message, the results that are kept,
// and that nothing hangs. tests/e2e/fake_device_test.cc has what needs no device.
#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <optional>
#include <set>
#include <thread>
#include <unistd.h>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/device/device.h"
#include "tests/e2e/cuda_runs.h"
#include "tests/fakes/cuda/cuda_faults.h"
#include "tests/support/error_of.h"

namespace sluice {
namespace {

using kernels::fakes::CudaCall;
using offload::Request;
using offload::Result;
using sluice::testing::error_of;
using ::testing::AllOf;
using ::testing::HasSubstr;

class CudaFault : public testing::CudaRuns {};

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

TEST_F(CudaFault, ARefusedAllocationReportsBothNumbersThePlanAndTheRemedy) {
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
TEST_F(CudaFault, APlacementAboveFreeMemoryIsRefusedWithBothNumbers) {
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

TEST_F(CudaFault, ADeviceThatDoesNotExistIsRefusedWithTheNumberOfThoseThatDo) {
  const Error e = error_of([] { (void)kernels::make_cuda_device(97); });
  EXPECT_EQ(e.code(), Code::kInvalidArgument);
  EXPECT_THAT(e.what(), AllOf(HasSubstr("no CUDA device 97; this machine has "), HasSubstr("cuda:N")));
}

TEST_F(CudaFault, ADeviceFailureInMidRunNamesStepLayerAndPassAndKeepsWhatIsFinished) {
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

TEST_F(CudaFault, StoppingInAPassKeepsWhatIsFinished) {
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

TEST_F(CudaFault, ACancelledRequestLeavesTheOthersAlone) {
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
TEST_F(CudaFault, RunsOnAnotherThreadThanItWasMadeOn) {
  offload::Engine engine(testing::synthetic(testing::small_spec()), nullptr, options_on_cuda(kMixed));
  engine.submit(request_of(3));
  int results = 0;
  std::jthread([&] { engine.run({}, [&](const Result&) { ++results; }); }).join();
  EXPECT_EQ(results, 1);
}

// ---- Calls of CUDA that are refused at start, each kind at its first, second, middle and last call.

/// Makes an engine and runs a request; what went wrong, if anything did.
std::optional<Error> run_once() {
  try {
    expect_device_works();
  } catch (const Error& e) {
    return e;
  }
  return std::nullopt;
}

class CudaRefusal : public CudaFault, public ::testing::WithParamInterface<CudaCall> {};

TEST_P(CudaRefusal, AtStartIsReportedWithThePlan) {
  const CudaCall call = GetParam();
  kernels::fakes::refuse_cuda_call(call, 0);
  expect_device_works();
  const std::int64_t calls = kernels::fakes::num_cuda_calls(call);
  ASSERT_GE(calls, 1) << "the engine makes no such call any more";
  for (const std::int64_t nth :
       std::set<std::int64_t>{1, std::min<std::int64_t>(2, calls), (calls + 1) / 2, calls}) {
    SCOPED_TRACE(fmt::format("{} {} of {}", kernels::fakes::cuda_call_name(call), nth, calls));
    kernels::fakes::refuse_cuda_call(call, nth);
    const std::optional<Error> e = run_once();
    EXPECT_GE(kernels::fakes::num_cuda_calls(call), nth) << "nothing was refused";
    kernels::fakes::refuse_cuda_call(call, 0);
    if (call == CudaCall::kHostRegister) {
      EXPECT_FALSE(e.has_value()) << "pageable memory works as well: " << e->what();
      continue;
    }
    ASSERT_TRUE(e.has_value()) << "nobody noticed";
    EXPECT_EQ(e->code(), Code::kOutOfMemory) << e->what();
    EXPECT_THAT(e->what(), AllOf(HasSubstr("planned: "), HasSubstr("gpu: "), HasSubstr(" = weights "),
                                 HasSubstr("; "), HasSubstr("lower --")));
  }
  expect_device_works();
}

INSTANTIATE_TEST_SUITE_P(Calls, CudaRefusal, ::testing::ValuesIn(kernels::fakes::kCudaCalls),
                         [](const auto& call) {
                           return std::string(kernels::fakes::cuda_call_name(call.param));
                         });

// ---- A kernel that breaks the device for the rest of the process, so in a process of its own.

class CudaFaultDeathTest : public CudaFault, public ::testing::WithParamInterface<bool> {
 protected:
  void SetUp() override {
    CudaFault::SetUp();
    GTEST_FLAG_SET(death_test_style, "threadsafe");
  }
};

/// Ends the process: 0 if the failure was told as it should, 1 if not, by a signal if anything hangs.
[[noreturn]] void run_with_broken_device(bool cpu_attention) {
  ::alarm(60);
  std::vector<std::int64_t> finished;
  std::string what;
  {
    offload::EngineOptions options = options_on_cuda(kMixed, cpu_attention);
    const auto hooks = std::make_shared<offload::RunHooks>();
    hooks->before_step = [](const policy::Step& step) {
      if (step.pass == 12 && step.unit == 2 && step.kind == policy::StepKind::kPost)
        kernels::fakes::launch_illegal_access();
    };
    options.hooks = hooks;
    offload::Engine engine(testing::synthetic(testing::small_spec()), nullptr, options);
    for (const std::int64_t length : {3, 60, 4}) engine.submit(request_of(length));
    try {
      engine.run({}, [&](const Result& result) { finished.push_back(result.index); });
    } catch (const Error& e) {
      what = fmt::format("{}: {}", exit_status(e.code()), e.what());
    }
  }
  std::cerr << what << "\n";
  EXPECT_THAT(what,
              AllOf(HasSubstr(fmt::format("{}: ", exit_status(Code::kDevice))), HasSubstr(" of unit "),
                    HasSubstr("pass 12"), HasSubstr("illegal memory access"), HasSubstr("; see the driver")));
  EXPECT_THAT(what, ::testing::ContainsRegex("layer [0-2]"));
  EXPECT_THAT(finished, ::testing::ElementsAre(0, 2));
  std::_Exit(::testing::Test::HasFailure() ? 1 : 0);
}

TEST_P(CudaFaultDeathTest, ABrokenDeviceEndsTheRunWithWhatIsFinished) {
  EXPECT_EXIT(run_with_broken_device(GetParam()), ::testing::ExitedWithCode(0), "illegal memory access");
}

INSTANTIATE_TEST_SUITE_P(CpuAttention, CudaFaultDeathTest, ::testing::Bool());

}  // namespace
}  // namespace sluice
