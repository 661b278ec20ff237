// Small schedules as text files under tests/golden/schedules. To accept a change on purpose, run this test
// with SLUICE_UPDATE_GOLDEN=1 and read the difference.
#include <cstdlib>
#include <fstream>
#include <sstream>

#include <gtest/gtest.h>

#include "policy/format_schedule.h"
#include "tests/policy/pass_driver.h"
#include "tests/policy/shapes.h"
#include "tests/support/paths.h"

namespace sluice::policy {
namespace {

using testing::DrivenRequest;
using testing::PassDriver;

/// Prologue and passes of a run of a two-layer model, as text; judged on the way.
std::string dump(const Placement& placement, const std::vector<DrivenRequest>& requests, int max_passes) {
  const ModelSpec spec = testing::opt_spec(2, 64, 2, 128);
  Workload work{.max_prompt_len = 0, .max_gen_len = 0, .max_total_len = 0, .num_requests = 0};
  for (const DrivenRequest& r : requests) {
    work.max_prompt_len = std::max(work.max_prompt_len, r.prompt_len);
    work.max_gen_len = std::max(work.max_gen_len, r.gen_len);
    work.max_total_len = std::max(work.max_total_len, r.prompt_len + r.gen_len);
    ++work.num_requests;
  }
  const RunShape shape =
      make_run_shape(spec, testing::tensor_sizes(spec), placement, work, testing::test_traits());
  ScheduleBuilder builder(shape);
  ScheduleChecker checker(shape);
  Schedule schedule;
  builder.build_prologue(schedule);
  checker.add(schedule, nullptr);
  std::string text = "prologue\n";
  text += format_schedule(schedule);
  PassDriver driver(shape, requests);
  for (int i = 0; i < max_passes && !driver.done(); ++i) {
    const Pass& pass = driver.compose();
    builder.build_pass(pass, schedule);
    checker.add(schedule, &pass);
    text += '\n';
    text += format_pass(pass);
    text += format_schedule(schedule);
    driver.advance();
  }
  EXPECT_TRUE(checker.violations().empty()) << checker.violations().front();
  return text;
}

void compare(const std::string& name, const std::string& text) {
  const std::filesystem::path path = sluice::testing::golden(std::filesystem::path("schedules") / name);
  if (std::getenv("SLUICE_UPDATE_GOLDEN") != nullptr) {
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  std::ifstream in(path);
  std::stringstream wanted;
  wanted << in.rdbuf();
  EXPECT_EQ(text, wanted.str()) << "differs from " << path;
}

Placement offloaded() {
  Placement placement;
  placement.percents.weights = {{0, 100, 0}};
  placement.percents.kv_cache = {{0, 100, 0}};
  placement.gpu_batch_size = 1;
  placement.num_gpu_batches = 2;
  return placement;
}

// A prompt is prefilled while another sequence decodes and the CPU attends for it.
TEST(GoldenSchedule, MixedPassWithCpuAttention) {
  Placement placement = offloaded();
  placement.cpu_attention = true;
  placement.max_tokens_per_gpu_batch = 70;
  compare("mixed.txt", dump(placement, {{70, 3, false}, {100, 2, false}}, 3));
}

// The second request ends, and the third takes its seat in the next pass while the first goes on.
TEST(GoldenSchedule, Refill) {
  Placement placement = offloaded();
  compare("refill.txt", dump(placement, {{20, 4, false}, {30, 1, false}, {10, 2, false}}, 3));
}

// Weights, KV and activations all on disk.
TEST(GoldenSchedule, EverythingOnDisk) {
  Placement placement = offloaded();
  placement.percents.weights = placement.percents.kv_cache = placement.percents.activations = {{0, 0, 100}};
  compare("disk.txt", dump(placement, {{65, 2, false}, {3, 2, false}}, 2));
}

// Weights on CPU and disk come when the GPU has come to their unit; the embedding of the second pass finds
// what the head of the first one needed.
TEST(GoldenSchedule, NoPrefetch) {
  Placement placement = offloaded();
  placement.percents.weights = {{0, 50, 50}};
  placement.prefetch = false;
  compare("no_prefetch.txt", dump(placement, {{20, 2, false}, {3, 2, false}}, 2));
}

}  // namespace
}  // namespace sluice::policy
