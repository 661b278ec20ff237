// What start does on a device with memory of its own that refuses, fails or is slow: the fake knows no
// kernels, so these runs end before the first pass. And a device failure in the middle of a run, which a hook
// stands for.
#include <cstring>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/store/manifest.h"
#include "core/units.h"
#include "offload/plan_run.h"
#include "offload/weights/resident_loader.h"
#include "tests/e2e/small_model.h"
#include "tests/fakes/fake_async_device.h"
#include "tests/fakes/fake_io.h"
#include "tests/support/error_of.h"

namespace sluice {
namespace {

using kernels::fakes::FakeAsyncDevice;
using kernels::fakes::FakeDeviceScript;
using kernels::fakes::Fault;
using ::testing::AllOf;
using ::testing::HasSubstr;

using sluice::testing::error_of;

/// An engine over the small model whose device is a fake.
offload::EngineOptions options_on(const FakeDeviceScript& script, const std::vector<int>& percents) {
  offload::EngineOptions options;
  options.placement = testing::placed(percents, 2, 1, false);
  options.workload = {.max_prompt_len = 16, .max_gen_len = 8, .max_total_len = 24, .num_requests = 2};
  options.num_threads = 2;
  const auto hooks = std::make_shared<offload::RunHooks>();
  hooks->wrap_device = [script](std::unique_ptr<kernels::Device> /*cpu*/) {
    return std::make_unique<FakeAsyncDevice>(script);
  };
  options.hooks = hooks;
  return options;
}

Error refusal(const offload::EngineOptions& options) {
  return error_of([&] { offload::Engine(testing::synthetic(testing::small_spec()), nullptr, options); });
}

TEST(FakeDevice, ARefusedAllocationNamesBothNumbersThePlanAndTheRemedy) {
  const Error e = refusal(options_on({.allocation_fails = true}, {100, 0, 100, 0, 100, 0}));
  EXPECT_EQ(e.code(), Code::kOutOfMemory);
  EXPECT_THAT(e.what(),
              AllOf(HasSubstr("gpu memory: need "), HasSubstr("but 1.00 GiB are free"),
                    HasSubstr("(planned: gpu: "), HasSubstr(" = weights "), HasSubstr(" + KV cache "),
                    HasSubstr("; lower --gpu-memory, or end the other programs on this GPU")));
}

TEST(FakeDevice, APlacementAboveFreeMemoryIsRefusedBeforeAnythingIsTaken) {
  offload::EngineOptions options = options_on({.free_bytes = 1_MiB}, {100, 0, 100, 0, 100, 0});
  const auto numbers = AllOf(HasSubstr("of GPU memory, but "), HasSubstr("1.00 MiB are free"),
                             HasSubstr("planned: gpu: "), HasSubstr("--percent"));
  const Error unstated = refusal(options);
  EXPECT_EQ(unstated.code(), Code::kOutOfMemory);
  EXPECT_THAT(unstated.what(), AllOf(numbers, HasSubstr("but 921.59 KiB can be had")));  // nine tenths
  options.budget_bytes[Tier::kGpu] = 100_GiB;
  const Error stated = refusal(options);
  EXPECT_EQ(stated.code(), Code::kOutOfMemory);
  EXPECT_THAT(stated.what(),
              AllOf(numbers, HasSubstr("but 921.59 KiB can be had")));  // not all: the driver's part
}

TEST(FakeDevice, TooLittlePinnableMemoryIsNoReasonToStop) {
  const offload::EngineOptions options = options_on({.most_pinned_bytes = 0}, {0, 100, 0, 100, 0, 100});
  const offload::Engine engine(testing::synthetic(testing::small_spec()), nullptr, options);
  EXPECT_EQ(engine.stats().device, "fake device");
}

// ---- Loading weights into the device's memory.

class LoadOnDevice : public ::testing::Test {
 protected:
  LoadOnDevice() : source_(testing::model("rand-opt-bin-sharded")) {
    for (const std::string& file : manifest().files) {
      std::ifstream in(source_.store() / file, std::ios::binary);
      const std::string text((std::istreambuf_iterator<char>(in)), {});
      const auto* bytes = reinterpret_cast<const std::byte*>(text.data());
      disk_->put((source_.store() / file).string(), {bytes, bytes + text.size()});
    }
    offload::fakes::FakeScript slow;
    slow.delay = std::chrono::microseconds(500);
    io_ = std::make_unique<offload::fakes::FakeIo>(offload::BlockIoOptions{}, disk_, slow);
    offload::EngineOptions options = options_on({}, {60, 40, 100, 0, 100, 0});
    plan_ = offload::plan_run(source_, options, device_);
    budget_.emplace(plan_.budget_bytes);
    memory_.emplace(plan_.memory, *budget_, std::filesystem::path(), 1, device_);
    stream_ = device_.make_fake_stream();
  }
  const Manifest& manifest() const { return source_.manifest(); }
  std::string path_of(const StoredTensor& tensor) const {
    return (source_.store() / manifest().files.at(static_cast<std::size_t>(tensor.file))).string();
  }
  void load(std::stop_token stop = {}) {
    offload::load_resident_weights(
        {source_, plan_.shape, *memory_, device_, *stream_, *io_, pool_, std::move(stop)});
  }

  const offload::WeightSource source_;
  std::shared_ptr<offload::fakes::FakeDisk> disk_ = std::make_shared<offload::fakes::FakeDisk>();
  std::unique_ptr<offload::BlockIo> io_;
  kernels::ThreadPool pool_{2};
  FakeAsyncDevice device_;
  offload::PlannedRun plan_;
  std::optional<offload::MemoryBudget> budget_;
  std::optional<offload::TierMemory> memory_;
  std::unique_ptr<kernels::fakes::FakeAsyncStream> stream_;
};

TEST_F(LoadOnDevice, BringsEveryTensorToItsPlace) {
  load();
  PerTier<int> count{};
  for (std::size_t i = 0; i < manifest().tensors.size(); ++i) {
    const StoredTensor& tensor = manifest().tensors[i];
    const std::vector<std::byte> file = disk_->content(path_of(tensor));
    const auto home = offload::resident_home(plan_.shape, *memory_, i);
    EXPECT_EQ(std::memcmp(home.data(), file.data() + tensor.offset, static_cast<std::size_t>(tensor.bytes)),
              0)
        << tensor.spec.name;
    ++count[plan_.shape.tensors[i].tier];
  }
  EXPECT_GT(count[Tier::kGpu], 3);
  EXPECT_GT(count[Tier::kCpu], 3);
}

// The next tensor is being read into a buffer that the failure gives back.
TEST_F(LoadOnDevice, AChangedTensorEndsItWithNothingLeftInFlight) {
  std::size_t victim = 0;
  while (plan_.shape.tensors[victim].tier != Tier::kGpu) ++victim;
  const StoredTensor& tensor = manifest().tensors[victim];
  std::vector<std::byte> bytes = disk_->content(path_of(tensor));
  bytes[static_cast<std::size_t>(tensor.offset)] ^= std::byte{1};
  disk_->put(path_of(tensor), bytes);
  const Error e = error_of([&] { load(); });
  EXPECT_EQ(e.code(), Code::kCorrupt);
  EXPECT_THAT(e.what(), HasSubstr(tensor.spec.name));
  EXPECT_EQ(io_->in_flight(), 0);
}

TEST_F(LoadOnDevice, StoppingEndsItWithNothingLeftInFlight) {
  std::stop_source stop;
  stop.request_stop();
  EXPECT_EQ(error_of([&] { load(stop.get_token()); }).code(), Code::kCancelled);
  EXPECT_EQ(io_->in_flight(), 0);
}

TEST_F(LoadOnDevice, ADeviceThatFailsEndsIt) {
  stream_->fail_step(2, Fault::kSticky);
  EXPECT_EQ(error_of([&] { load(); }).code(), Code::kDevice);
  EXPECT_EQ(io_->in_flight(), 0);
}

// ---- A failure in the middle of a run.

TEST(DeviceFailure, InMidRunNamesStepLayerAndPassAndKeepsWhatIsFinished) {
  offload::EngineOptions options;
  options.placement = testing::placed({40, 60, 50, 50, 0, 100}, 2, 2, true);
  options.workload = {.max_prompt_len = 16, .max_gen_len = 16, .max_total_len = 32, .num_requests = 3};
  options.num_threads = 2;
  const auto hooks = std::make_shared<offload::RunHooks>();
  hooks->before_step = [](const policy::Step& step) {
    if (step.pass == 6 && step.unit == 2 && step.kind == policy::StepKind::kPost)
      throw Error(Code::kDevice, "an illegal memory access was encountered", "see the driver's log");
  };
  options.hooks = hooks;
  std::vector<std::int64_t> finished;
  offload::Engine engine(testing::synthetic(testing::small_spec()), nullptr, options);
  for (const std::int64_t length : {3, 16, 4}) {
    offload::Request request;
    request.prompt_ids = testing::prompt_of(10, testing::small_spec().vocab_size, 3);
    request.max_new_tokens = length;
    engine.submit(std::move(request));
  }
  const Error e = error_of(
      [&] { engine.run({}, [&](const offload::Result& result) { finished.push_back(result.index); }); });
  EXPECT_EQ(e.code(), Code::kDevice);
  EXPECT_THAT(e.what(), AllOf(HasSubstr("post of unit 2 (layer 1, pass 6): an illegal memory access"),
                              HasSubstr("; see the driver's log")));
  EXPECT_THAT(finished, ::testing::ElementsAre(0, 2));
  EXPECT_GT(engine.stats().num_passes, 3);
  EXPECT_THROW(engine.run({}, [](const offload::Result&) {}), Error);
}

}  // namespace
}  // namespace sluice
