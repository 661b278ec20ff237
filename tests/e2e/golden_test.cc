// The engine against what transformers computed: log-probs of the prompts and greedy continuations.
#include "tests/e2e/golden.h"

#include <gtest/gtest.h>

#include "tests/e2e/e2e.h"

namespace sluice {
namespace {

using testing::Golden;

class GoldenRun : public ::testing::TestWithParam<std::tuple<Golden, KvFormat>> {};

TEST_P(GoldenRun, MatchesTransformers) {
  const auto& [golden, kv_format] = GetParam();
  policy::Placement placement;
  placement.kv_format = kv_format;
  placement.gpu_batch_size = 4;
  const testing::RunOutcome outcome =
      testing::run_requests(testing::model(golden.checkpoint), placement, testing::golden_requests(golden));
  EXPECT_TRUE(outcome.violations.empty()) << outcome.violations.front();
  // fp32 KV leaves only the order of summation; fp16 KV rounds K and V to 11 bits.
  const double limit = kv_format == KvFormat::kF32 ? 1e-3 : 2e-2;
  testing::expect_golden(golden, outcome.results,
                         {.worst_logprob_error = limit, .mean_logprob_error = 1e-3, .top2_gap = limit});
}

INSTANTIATE_TEST_SUITE_P(Opt, GoldenRun,
                         ::testing::Combine(::testing::ValuesIn(testing::kOptGoldens),
                                            ::testing::Values(KvFormat::kF32, KvFormat::kF16)));

}  // namespace
}  // namespace sluice
