// The engine on a CUDA device: golden log-probs, placements that never change the answer, batch invariance,
// and poisoned memory with random delays on every lane.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/e2e/cuda_runs.h"
#include "tests/e2e/golden.h"
#include "tests/e2e/lane_bytes.h"

namespace sluice {
namespace {

using kernels::BatchInvariance;
using offload::Request;
using policy::Placement;
using testing::first_real_difference;
using testing::Golden;
using testing::greedy_requests;
using testing::run_on_cuda;
using testing::RunOutcome;

class Cuda : public testing::CudaRuns {};

class CudaGolden : public Cuda,
                   public ::testing::WithParamInterface<std::tuple<Golden, std::vector<int>, bool>> {};

TEST_P(CudaGolden, MatchesTransformers) {
  const auto& [golden, percents, cpu_attention] = GetParam();
  const RunOutcome outcome =
      run_on_cuda(testing::model(golden.checkpoint), testing::placed(percents, 4, 2, cpu_attention),
                  testing::golden_requests(golden));
  EXPECT_TRUE(outcome.violations.empty()) << outcome.violations.front();
  const testing::CudaLimits limits;
  testing::expect_golden(golden, outcome.results,
                         {.worst_logprob_error = limits.worst_logprob_error,
                          .mean_logprob_error = limits.mean_logprob_error,
                          .top2_gap = limits.top2_gap});
}

INSTANTIATE_TEST_SUITE_P(Opt, CudaGolden,
                         ::testing::Combine(::testing::ValuesIn(testing::kOptGoldens),
                                            ::testing::Values(std::vector<int>{100, 0, 100, 0, 100, 0},
                                                              std::vector<int>{0, 50, 0, 100, 0, 100}),
                                            ::testing::Bool()));

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
                       {.batch_invariance = BatchInvariance::kOn});
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
    return run_on_cuda(testing::synthetic(spec), placement, requests, nullptr,
                       {.batch_invariance = BatchInvariance::kOn});
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
  hooks.before_step = testing::random_delays(seed);
  const RunOutcome outcome = run_on_cuda(testing::synthetic(spec), placement, requests, &hooks);
  EXPECT_TRUE(outcome.violations.empty()) << outcome.violations.front();
  EXPECT_EQ(testing::first_difference(quiet.results, outcome.results), "");
}

INSTANTIATE_TEST_SUITE_P(Small, CudaStress,
                         ::testing::Combine(::testing::Range(std::size_t{0}, std::size_t{6}),
                                            ::testing::Values(1U, 2U)));

}  // namespace
}  // namespace sluice
