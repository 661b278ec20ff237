#include "tests/e2e/golden.h"

#include <algorithm>
#include <cmath>
#include <iostream>
#include <utility>

#include <gtest/gtest.h>

namespace sluice::testing {

std::vector<offload::Request> golden_requests(const Golden& golden) {
  std::vector<offload::Request> requests;
  for (const GoldenCase& c : golden_cases(golden.cases)) {
    offload::Request request;
    request.prompt_ids = c.prompt_ids;
    request.max_new_tokens = static_cast<std::int64_t>(c.greedy_ids.size());
    request.want_prompt_logprobs = true;
    request.ignore_eos = true;
    requests.push_back(std::move(request));
  }
  return requests;
}

void expect_golden(const Golden& golden, std::span<const offload::Result> results,
                   const GoldenLimits& limits) {
  const std::vector<GoldenCase> cases = golden_cases(golden.cases);
  ASSERT_EQ(results.size(), cases.size());
  double worst = 0;
  double sum = 0;
  std::int64_t count = 0;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const GoldenCase& c = cases[i];
    const offload::Result& result = results[i];
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
      EXPECT_LE(c.greedy_top2_gap[t], limits.top2_gap) << "case " << i << " token " << t;
      break;  // after a permitted difference the texts part
    }
  }
  const double mean = sum / static_cast<double>(count);
  EXPECT_LE(worst, limits.worst_logprob_error);
  EXPECT_LE(mean, limits.mean_logprob_error);
  ::testing::Test::RecordProperty("worst", std::to_string(worst));
  std::cout << golden.cases << ": worst " << worst << " mean " << mean << " of " << count << " tokens\n";
}

}  // namespace sluice::testing
