// A system without threads left is an error with numbers, and leaves nothing running behind.
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <functional>
#include <memory>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "apps/interrupt.h"
#include "apps/raw_disk.h"
#include "apps/sweep/run_sweep.h"
#include "core/error.h"
#include "core/units.h"
#include "offload/io/block_file.h"
#include "tests/apps/temp_dir.h"
#include "tests/fakes/thread_limit.h"

namespace sluice::apps {
namespace {

using kernels::fakes::ThreadLimit;
using ::testing::AllOf;
using ::testing::HasSubstr;

void expect_no_thread(const std::function<void()>& work, const char* which) {
  try {
    work();
    ADD_FAILURE() << "no error, but expected " << which;
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kOutOfMemory);
    EXPECT_THAT(e.what(), AllOf(HasSubstr(which), HasSubstr("did not start"), HasSubstr("ulimit -u")));
  }
}

TEST(ThreadStarts, APlainLoopOverAFileEndsWithTheThreadsThatItHas) {
  const TempDir dir;
  constexpr std::int64_t kBlocks = 64;
  write_text(dir / "file", std::string(kBlocks * kPageAlign, 'x'));
  if (!offload::UniqueFd(::open((dir / "file").c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC)))
    GTEST_SKIP() << "no direct I/O in " << dir.path();
  const std::unique_ptr<void, void (*)(void*)> memory(std::aligned_alloc(kPageAlign, 4 * kPageAlign),
                                                      std::free);
  const std::span<std::byte> bytes(static_cast<std::byte*>(memory.get()), 4 * kPageAlign);
  const RawLoop loop{.num_threads = 4, .block_bytes = kPageAlign};
  const auto read = [&](const kernels::ThreadMaker& make_thread) {
    return raw_bytes_per_sec(dir / "file", offload::IoOp::kRead, 0, kBlocks * kPageAlign, loop, bytes,
                             make_thread);
  };
  ThreadLimit limit(2);
  expect_no_thread([&] { read(limit.maker()); }, "thread 3 of 4 of a plain loop over a file");
  EXPECT_EQ(limit.running(), 0);
  EXPECT_GT(read({}), 0);
}

TEST(ThreadStarts, TheWatchForCtrlCLeavesSignalsAsTheyWere) {
  ThreadLimit none(0);
  expect_no_thread([&] { const InterruptScope scope(none.maker()); },
                   "thread 1 of 1 of the watch for Ctrl-C");
  sigset_t blocked;
  pthread_sigmask(SIG_BLOCK, nullptr, &blocked);
  EXPECT_EQ(sigismember(&blocked, SIGINT), 0);
  EXPECT_EQ(sigismember(&blocked, SIGTERM), 0);
  struct sigaction action = {};
  sigaction(SIGINT, nullptr, &action);
  EXPECT_EQ(action.sa_handler, SIG_DFL);

  // The next scope finds everything in order.
  const InterruptScope scope;
  std::raise(SIGINT);
  while (!scope.token().stop_requested()) std::this_thread::yield();
  EXPECT_THROW(scope.throw_if_requested(), Error);
}

TEST(ThreadStarts, APredictedSweepCanBeResumed) {
  const TempDir dir;
  write_text(dir / "small.yaml", R"(hardware: [laptop-8gb]
flags: {model: "random:opt-125m", prompt-len: 8, gen-len: 2, num-requests: 2, percent: 100 0 100 0 100 0}
axes: {gpu-batch-size: [1, 2, 3, 4]}
)");
  SweepOptions options;
  options.files = {dir / "small.yaml"};
  options.mode = SweepOptions::Mode::kSimulate;
  options.output.path = dir / "out.jsonl";
  options.jobs = 3;
  ThreadLimit limit(1);
  options.make_thread = limit.maker();
  expect_no_thread([&] { run_sweep(options, [](const SweepSummary&) {}); }, "thread 2 of 3 of the sweep");
  EXPECT_EQ(limit.running(), 0);

  options.make_thread = {};
  options.output.resume = true;
  SweepSummary summary;
  run_sweep(options, [&](const SweepSummary& all) { summary = all; });
  EXPECT_EQ(summary.num_ok, 4) << summary.first_problem;
}

}  // namespace
}  // namespace sluice::apps
