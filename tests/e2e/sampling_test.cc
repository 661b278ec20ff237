// Sampling through the engine: a draw belongs to the request, not to its place, and the tokens have the
// distribution of the model.
#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/e2e/small_model.h"

namespace sluice {
namespace {

using offload::Request;
using offload::Result;
using policy::Placement;

const std::vector<std::int32_t>& prompt() {
  static const std::vector<std::int32_t> ids = testing::prompt_of(5, testing::small_spec().vocab_size, 77);
  return ids;
}

Request sampled(std::uint64_t seed, std::uint64_t draw_key, std::int64_t max_new_tokens) {
  Request request;
  request.prompt_ids = prompt();
  request.max_new_tokens = max_new_tokens;
  request.sampling.do_sample = true;
  request.sampling.seed = seed;
  request.draw_key = draw_key;
  request.ignore_eos = true;
  request.want_logprobs = true;
  return request;
}

std::vector<Result> run(std::vector<Request> requests, const Placement& placement) {
  testing::RunOutcome outcome =
      testing::run_requests(testing::synthetic(testing::small_spec()), placement, std::move(requests));
  EXPECT_TRUE(outcome.violations.empty()) << outcome.violations.front();
  return std::move(outcome.results);
}

Placement resident(std::int64_t gpu_batch_size) {
  return testing::placed({100, 0, 100, 0, 100, 0}, gpu_batch_size, 1, false);
}

std::vector<Result> run(std::vector<Request> requests) { return run(std::move(requests), resident(16)); }

// ---- A draw belongs to its request.

TEST(Sampling, TheSameKeyDrawsTheSameTokensAtAnyPlace) {
  const std::vector<Result> alone = run({sampled(7, 42, 15)}, resident(1));
  for (const std::size_t position : {0U, 1U, 5U, 9U}) {
    std::vector<Request> requests = testing::ragged_requests(testing::small_spec().vocab_size);
    requests.insert(requests.begin() + static_cast<std::ptrdiff_t>(position), sampled(7, 42, 15));
    for (const Placement& placement : {resident(3), testing::placed({20, 40, 10, 40, 0, 50}, 2, 2, true)}) {
      const std::vector<Result> together = run(requests, placement);
      EXPECT_EQ(testing::first_difference(alone, std::span(together).subspan(position, 1)), "")
          << "position " << position << ", " << to_string(placement.percents);
    }
  }
}

TEST(Sampling, SeedAndKeyBothChooseTheDraws) {
  const std::vector<Result> results =
      run({sampled(1, 1, 15), sampled(2, 1, 15), sampled(1, 2, 15), sampled(1, 1, 15)});
  EXPECT_NE(results[0].token_ids, results[1].token_ids);
  EXPECT_NE(results[0].token_ids, results[2].token_ids);
  EXPECT_EQ(results[0].token_ids, results[3].token_ids);
}

TEST(Sampling, TheKeyIsTheIndexOfTheRequestUnlessGiven) {
  std::vector<Request> requests(3, sampled(5, 0, 10));
  for (Request& request : requests) request.draw_key.reset();
  const std::vector<Result> by_index = run(requests);
  for (std::size_t i = 0; i < 3; ++i) {
    const std::vector<Result> by_key = run({sampled(5, i, 10)});
    EXPECT_EQ(by_index[i].token_ids, by_key[0].token_ids) << i;
  }
}

// ---- Greedy, and what is as good as greedy.

TEST(Sampling, GreedyIgnoresSeedKeyAndFilters) {
  std::vector<Request> requests = {sampled(1, 1, 12), sampled(2, 9, 12), sampled(3, 5, 12)};
  for (Request& request : requests) request.sampling.do_sample = false;
  requests[1].sampling.temperature = 3.0F;
  requests[2].sampling.top_p = 0.5F;
  const std::vector<Result> results = run(requests);
  EXPECT_EQ(testing::first_difference({results.data(), 1}, {results.data() + 1, 1}), "");
  EXPECT_EQ(testing::first_difference({results.data(), 1}, {results.data() + 2, 1}), "");
}

TEST(Sampling, TopOneAndTemperatureZeroAreGreedy) {
  std::vector<Request> requests(4, sampled(1, 1, 12));
  requests[0].sampling.do_sample = false;
  requests[1].sampling.top_k = 1;
  requests[2].sampling.temperature = 0;
  requests[3].sampling.top_p = 1e-6F;
  const std::vector<Result> results = run(requests);
  for (std::size_t i = 1; i < 4; ++i) EXPECT_EQ(results[i].token_ids, results[0].token_ids) << i;
}

// ---- Distribution.

/// log p(v | prompt) of every token, from runs that only score.
std::vector<double> scored_log_probs() {
  const std::int64_t vocab = testing::small_spec().vocab_size;
  std::vector<Request> requests;
  for (std::int64_t v = 0; v < vocab; ++v) {
    Request request;
    request.prompt_ids = prompt();
    request.prompt_ids.push_back(static_cast<std::int32_t>(v));
    request.max_new_tokens = 0;
    request.want_prompt_logprobs = true;
    requests.push_back(std::move(request));
  }
  std::vector<double> log_probs;
  for (const Result& result : run(std::move(requests)))
    log_probs.push_back(static_cast<double>(result.prompt_logprobs.back()));
  return log_probs;
}

/// The distribution that the parameters make of the log-probs; plain transcription of core/sampling's
/// contract.
std::vector<double> filtered(const std::vector<double>& log_probs, const SamplingParams& params) {
  std::vector<std::size_t> order(log_probs.size());
  std::iota(order.begin(), order.end(), 0U);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return log_probs[a] > log_probs[b]; });
  if (params.top_k > 0) order.resize(std::min(order.size(), static_cast<std::size_t>(params.top_k)));
  std::vector<double> p(log_probs.size());
  double sum = 0;
  for (const std::size_t v : order)
    sum += p[v] = std::exp(log_probs[v] / static_cast<double>(params.temperature));
  double kept = 0;
  for (const std::size_t v : order) {
    if (kept >= static_cast<double>(params.top_p) * sum) p[v] = 0;
    kept += p[v];
  }
  for (double& x : p) x /= kept;
  return p;
}

/// The value that a chi-square variable with `degrees` of freedom exceeds once in 10000 times (Wilson and
/// Hilferty 1931).
double chi_square_limit(double degrees) {
  constexpr double kNormal = 3.719;
  const double part = 2.0 / (9.0 * degrees);
  return degrees * std::pow(1.0 - part + kNormal * std::sqrt(part), 3.0);
}

class SampledDistribution : public ::testing::TestWithParam<SamplingParams> {};

TEST_P(SampledDistribution, PassesChiSquareAgainstTheSoftmaxOfScoredLogits) {
  constexpr int kDraws = 2000;
  const std::vector<double> log_probs = scored_log_probs();
  double mass = 0;
  for (const double log_prob : log_probs) mass += std::exp(log_prob);
  ASSERT_NEAR(mass, 1.0, 1e-5);
  std::vector<Request> requests;
  for (int i = 0; i < kDraws; ++i) {
    Request request = sampled(11, static_cast<std::uint64_t>(i), 1);
    request.sampling = GetParam();
    request.sampling.do_sample = true;
    requests.push_back(std::move(request));
  }
  std::map<std::size_t, int> counts;
  for (const Result& result : run(std::move(requests), resident(64))) {
    const auto id = static_cast<std::size_t>(result.token_ids.at(0));
    ++counts[id];
    EXPECT_NEAR(static_cast<double>(result.logprobs.at(0).logprob), log_probs[id], 1e-5)
        << "log-probs are of the raw logits";
  }
  const std::vector<double> expected = filtered(log_probs, GetParam());
  // Tokens that are too rare for the approximation share a bin.
  double chi_square = 0;
  double rare_expected = 0;
  double rare_count = 0;
  int bins = 0;
  const auto add = [&](double count, double mean) {
    chi_square += (count - mean) * (count - mean) / mean;
    ++bins;
  };
  for (std::size_t v = 0; v < expected.size(); ++v) {
    const double mean = kDraws * expected[v];
    if (mean == 0) {
      EXPECT_EQ(counts[v], 0) << "token " << v << " was filtered out";
    } else if (mean >= 5) {
      add(counts[v], mean);
    } else {
      rare_expected += mean;
      rare_count += counts[v];
    }
  }
  if (rare_expected > 0) add(rare_count, rare_expected);
  ASSERT_GE(bins, 3);
  EXPECT_LE(chi_square, chi_square_limit(bins - 1)) << bins << " bins";
}

INSTANTIATE_TEST_SUITE_P(Params, SampledDistribution,
                         ::testing::Values(SamplingParams{}, SamplingParams{.temperature = 0.5F},
                                           SamplingParams{.temperature = 0.8F, .top_k = 10},
                                           SamplingParams{.temperature = 1.3F, .top_p = 0.7F},
                                           SamplingParams{.top_k = 30, .top_p = 0.6F}));

TEST(Sampling, TheFiltersOfTheDistributionTestMakeADifference) {
  const std::vector<double> log_probs = scored_log_probs();
  const auto kept = [&](const SamplingParams& params) {
    const std::vector<double> p = filtered(log_probs, params);
    return std::count_if(p.begin(), p.end(), [](double x) { return x > 0; });
  };
  EXPECT_EQ(kept({}), 96);
  EXPECT_EQ(kept({.top_k = 10}), 10);
  EXPECT_LT(kept({.temperature = 1.3F, .top_p = 0.7F}), 90);
  EXPECT_LT(kept({.top_k = 30, .top_p = 0.6F}), 30);
}

}  // namespace
}  // namespace sluice
