// The engine against what transformers computed: log-probs of the prompts and greedy continuations.
#include <cmath>

#include <gtest/gtest.h>

#include "tests/e2e/e2e.h"

namespace sluice {
namespace {

using testing::GoldenCase;

struct Golden {
  const char* checkpoint;
  const char* cases;
};

class GoldenRun : public ::testing::TestWithParam<std::tuple<Golden, KvFormat>> {};

TEST_P(GoldenRun, MatchesTransformers) {
  const auto& [golden, kv_format] = GetParam();
  // fp32 KV leaves only the order of summation; fp16 KV rounds K and V to 11 bits.
  const double worst_limit = kv_format == KvFormat::kF32 ? 1e-3 : 2e-2;
  const double mean_limit = 1e-3;
  const double gap_limit = kv_format == KvFormat::kF32 ? 1e-3 : 2e-2;

  const std::vector<GoldenCase> cases = testing::golden_cases(golden.cases);
  std::vector<offload::Request> requests;
  for (const GoldenCase& c : cases) {
    offload::Request request;
    request.prompt_ids = c.prompt_ids;
    request.max_new_tokens = static_cast<std::int64_t>(c.greedy_ids.size());
    request.want_prompt_logprobs = true;
    request.ignore_eos = true;
    requests.push_back(std::move(request));
  }
  policy::Placement placement;
  placement.kv_format = kv_format;
  placement.gpu_batch_size = 4;
  const testing::RunOutcome outcome =
      testing::run_requests(testing::model(golden.checkpoint), placement, std::move(requests));
  EXPECT_TRUE(outcome.violations.empty()) << outcome.violations.front();

  double worst = 0;
  double sum = 0;
  std::int64_t count = 0;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const GoldenCase& c = cases[i];
    const offload::Result& result = outcome.results[i];
    ASSERT_EQ(result.prompt_logprobs.size(), c.token_logprobs.size());
    for (std::size_t t = 0; t < c.token_logprobs.size(); ++t) {
      const double error = std::abs(static_cast<double>(result.prompt_logprobs[t]) - c.token_logprobs[t]);
      worst = std::max(worst, error);
      sum += error;
      ++count;
    }
    ASSERT_EQ(result.token_ids.size(), c.greedy_ids.size()) << "case " << i;
    for (std::size_t t = 0; t < c.greedy_ids.size(); ++t) {
      if (result.token_ids[t] == c.greedy_ids[t]) continue;
      EXPECT_LE(c.greedy_top2_gap[t], gap_limit) << "case " << i << " token " << t;
      break;  // after a permitted difference the texts part
    }
  }
  EXPECT_LE(worst, worst_limit);
  EXPECT_LE(sum / static_cast<double>(count), mean_limit);
  RecordProperty("worst", std::to_string(worst));
  std::cout << "worst " << worst << " mean " << sum / static_cast<double>(count) << " of " << count
            << " tokens\n";
}

INSTANTIATE_TEST_SUITE_P(
    Opt, GoldenRun,
    ::testing::Combine(
        ::testing::Values(Golden{"tiny-opt-books-sparse80", "tiny-opt-books-sparse80.golden.json"},
                          Golden{"tiny-opt-books-sparse80", "tiny-opt-books-sparse80-long.golden.json"},
                          Golden{"rand-opt-postln", "rand-opt-postln.golden.json"},
                          Golden{"rand-opt-bin-sharded", "rand-opt-bin-sharded.golden.json"}),
        ::testing::Values(KvFormat::kF32, KvFormat::kF16)));

}  // namespace
}  // namespace sluice
