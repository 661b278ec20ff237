// What a run does when its disks misbehave or its threads do not start: a fault ends it with a message that
// names the file, never with a hang, a crash or a wrong token; a slow or short-winded disk only makes it
// slower.
#include <fstream>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/store/manifest.h"
#include "tests/e2e/e2e.h"
#include "tests/fakes/fake_io.h"
#include "tests/fakes/thread_limit.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

std::vector<std::byte> content_of(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  const auto* bytes = reinterpret_cast<const std::byte*>(text.data());
  return {bytes, bytes + text.size()};
}

std::vector<offload::Request> some_requests() {
  std::vector<offload::Request> requests;
  for (int i = 0; i < 5; ++i) {
    offload::Request request;
    for (int t = 0; t < 30 + 25 * i; ++t) request.prompt_ids.push_back(10 + (t * 7 + i) % 300);
    request.max_new_tokens = 6;
    request.ignore_eos = true;
    request.want_logprobs = true;
    requests.push_back(request);
  }
  return requests;
}

policy::Placement everything_on_disk() {
  policy::Placement placement;
  placement.percents.weights = placement.percents.kv_cache = placement.percents.activations = {{0, 0, 100}};
  placement.gpu_batch_size = 2;
  placement.num_gpu_batches = 2;
  return placement;
}

/// Runs whose lanes read and write a scripted disk that holds the store.
class FaultyRun : public ::testing::Test {
 protected:
  testing::RunOutcome run(const offload::fakes::FakeScript& script, const policy::Placement& placement) {
    const offload::ModelSource model = testing::model("rand-opt-bin-sharded");
    const auto disk = std::make_shared<offload::fakes::FakeDisk>();
    for (const std::string& file : read_manifest(model.store).files) {
      disk->put((model.store / file).string(), content_of(model.store / file));
    }
    offload::RunHooks hooks;
    hooks.make_disk = [&] {
      return std::make_unique<offload::fakes::FakeIo>(offload::BlockIoOptions{}, disk, script);
    };
    return testing::run_requests(model, placement, some_requests(), nullptr, &hooks);
  }

  std::string failure_of(const offload::fakes::FakeScript& script, Code code) {
    try {
      run(script, everything_on_disk());
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), code) << e.what();
      return e.what();
    }
    ADD_FAILURE() << "the run went through";
    return {};
  }

  std::vector<std::vector<std::int32_t>> tokens(const testing::RunOutcome& outcome) {
    std::vector<std::vector<std::int32_t>> rows;
    for (const offload::Result& result : outcome.results) rows.push_back(result.token_ids);
    return rows;
  }
};

TEST_F(FaultyRun, ShortTransfersAndDelaysChangeNothing) {
  policy::Placement on_gpu;
  on_gpu.gpu_batch_size = 2;
  const auto wanted = tokens(run({}, on_gpu));
  offload::fakes::FakeScript script;
  script.short_share = 0.3;
  script.delay = std::chrono::microseconds(20);
  script.jitter = std::chrono::microseconds(300);
  script.reorder = true;
  const testing::RunOutcome outcome = run(script, everything_on_disk());
  EXPECT_EQ(tokens(outcome), wanted);
  EXPECT_TRUE(outcome.violations.empty()) << outcome.violations.front();
}

TEST_F(FaultyRun, ReadErrorThatStaysEndsTheRunWithTheFile) {
  offload::fakes::FakeScript script;
  script.faults.push_back({.op = offload::IoOp::kRead, .path = "", .error = EIO});
  EXPECT_THAT(failure_of(script, Code::kIo), HasSubstr("read_weights"));
}

TEST_F(FaultyRun, ReadErrorThatPassesIsRetried) {
  offload::fakes::FakeScript script;
  script.faults.push_back({.op = offload::IoOp::kRead, .path = "", .error = EIO, .times = 1});
  EXPECT_EQ(run(script, everything_on_disk()).results.size(), 5U);
}

TEST_F(FaultyRun, ChangedWeightsAreNoticedAsTheyStreamIn) {
  const offload::ModelSource model = testing::model("rand-opt-bin-sharded");
  const Manifest manifest = read_manifest(model.store);
  const auto disk = std::make_shared<offload::fakes::FakeDisk>();
  for (const std::string& file : manifest.files) {
    disk->put((model.store / file).string(), content_of(model.store / file));
  }
  const StoredTensor& victim = manifest.tensors.at(12);
  const std::string path = (model.store / manifest.files.at(static_cast<std::size_t>(victim.file))).string();
  std::vector<std::byte> bytes = disk->content(path);
  bytes[static_cast<std::size_t>(victim.offset + victim.bytes / 2)] ^= std::byte{4};
  disk->put(path, bytes);
  offload::RunHooks hooks;
  hooks.make_disk = [&] {
    return std::make_unique<offload::fakes::FakeIo>(offload::BlockIoOptions{}, disk,
                                                    offload::fakes::FakeScript{});
  };
  try {
    testing::run_requests(model, everything_on_disk(), some_requests(), nullptr, &hooks);
    FAIL() << "not noticed";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kCorrupt) << e.what();
    EXPECT_THAT(e.what(), HasSubstr(victim.spec.name));
    EXPECT_THAT(e.what(), HasSubstr(std::to_string(victim.offset)));
  }
}

TEST_F(FaultyRun, StoppingInAPassKeepsWhatIsFinishedAndLeavesNoFiles) {
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / fmt::format("sluice-stop-{}", ::getpid());
  std::filesystem::create_directories(folder);
  std::stop_source stop;
  const auto hooks = std::make_shared<offload::RunHooks>();
  hooks->before_step = [&](const policy::Step& step) {
    if (step.pass == 8 && step.kind == policy::StepKind::kPost) stop.request_stop();
  };
  std::vector<offload::Request> requests = some_requests();
  offload::EngineOptions options;
  options.placement = everything_on_disk();
  options.placement.num_gpu_batches = 1;
  options.workload = testing::workload_of(requests, 256);
  options.disk_dir = folder;
  options.hooks = hooks;
  std::vector<offload::Result> results;
  {
    offload::Engine engine(testing::model("rand-opt-bin-sharded"), nullptr, options);
    for (const offload::Request& request : requests) engine.submit(request);
    try {
      engine.run(stop.get_token(), [&](offload::Result result) { results.push_back(std::move(result)); });
      FAIL() << "was not stopped";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kCancelled);
    }
    EXPECT_THROW(engine.run({}, [](offload::Result) {}), Error) << "a stopped engine does not go on";
  }
  EXPECT_EQ(results.size(), 2U);  // the first two ended after six passes
  EXPECT_TRUE(std::filesystem::is_empty(folder));
  std::filesystem::remove_all(folder);
}

TEST_F(FaultyRun, FullDiskInTheRunNamesTheRemedy) {
  offload::fakes::FakeScript script;
  script.faults.push_back({.op = offload::IoOp::kWrite, .path = "", .error = ENOSPC});
  EXPECT_THAT(failure_of(script, Code::kIo), HasSubstr("--disk-dir"));
}

TEST(ThreadLimit, ALaneThatDoesNotStartEndsTheRunAndLeavesNoThread) {
  kernels::fakes::ThreadLimit threads(4);
  offload::RunHooks hooks;
  hooks.make_thread = threads.maker();
  try {
    testing::run_requests(testing::model("rand-opt-bin-sharded"), everything_on_disk(), some_requests(),
                          nullptr, &hooks);
    FAIL() << "not noticed";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kOutOfMemory) << e.what();
    EXPECT_THAT(e.what(), HasSubstr("thread 5 of "));
    EXPECT_THAT(e.what(), HasSubstr("; raise the limit on processes"));
  }
  EXPECT_EQ(threads.running(), 0);
}

}  // namespace
}  // namespace sluice
