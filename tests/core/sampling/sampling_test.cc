#include "core/sampling/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/sampling/philox.h"
#include "core/sampling/softmax_weight.h"

namespace sluice {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::int32_t choose(const std::vector<float>& logits, const SamplingParams& params, float draw) {
  std::vector<ScoredToken> scratch(logits.size());
  return choose_token(logits, params, draw, scratch);
}

SamplingParams sampled(float temperature = 1.0F, std::int32_t top_k = 0, float top_p = 1.0F) {
  return {.do_sample = true, .temperature = temperature, .top_k = top_k, .top_p = top_p, .seed = 7};
}

/// The distribution that the parameters describe, by a full sort: the oracle of the tests below.
std::vector<double> distribution(const std::vector<float>& logits, const SamplingParams& params) {
  std::vector<std::size_t> rank(logits.size());
  std::iota(rank.begin(), rank.end(), 0);
  std::stable_sort(rank.begin(), rank.end(), [&](auto a, auto b) { return logits[a] > logits[b]; });
  if (params.top_k > 0) rank.resize(std::min(rank.size(), static_cast<std::size_t>(params.top_k)));
  std::vector<double> p(logits.size());
  double total = 0;
  for (const std::size_t i : rank) {
    p[i] = std::exp((static_cast<double>(logits[i]) - logits[rank[0]]) / params.temperature);
    total += p[i];
  }
  double mass = 0, kept = 0;
  for (const std::size_t i : rank) {
    const bool reached = mass >= total * params.top_p && mass > 0;
    mass += p[i];
    if (reached && params.top_p < 1.0F) p[i] = 0;
    kept += p[i];
  }
  for (double& x : p) x /= kept;
  return p;
}

std::vector<float> random_logits(std::mt19937& rng, std::size_t size, float spread, bool with_ties) {
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> logits(size);
  for (float& x : logits) x = with_ties ? std::round(normal(rng) * 2) / 2 : normal(rng);
  return logits;
}

/// Draws `num_draws` tokens and returns how far the chi-square statistic lies above its mean, as the normal
/// deviate of Wilson and Hilferty's cube-root approximation. Tokens expected under 20 times share a cell.
double chi_square_deviate(const std::vector<float>& logits, const SamplingParams& params, int num_draws) {
  const std::vector<double> p = distribution(logits, params);
  std::vector<std::int64_t> seen(logits.size());
  std::vector<ScoredToken> scratch(logits.size());
  for (int i = 0; i < num_draws; ++i) {
    const float draw =
        uniform_draw(params.seed, static_cast<std::uint64_t>(i % 97), static_cast<std::uint64_t>(i));
    ++seen[static_cast<std::size_t>(choose_token(logits, params, draw, scratch))];
  }
  double statistic = 0, cell_expected = 0, cell_seen = 0;
  int cells = 0;
  const auto close_cell = [&] {
    statistic += (cell_seen - cell_expected) * (cell_seen - cell_expected) / cell_expected;
    cell_expected = cell_seen = 0;
    ++cells;
  };
  for (std::size_t i = 0; i < p.size(); ++i) {
    if (p[i] == 0) {
      EXPECT_EQ(seen[i], 0) << "token " << i << " is filtered out";
      continue;
    }
    cell_expected += p[i] * num_draws;
    cell_seen += static_cast<double>(seen[i]);
    if (cell_expected >= 20) close_cell();
  }
  if (cell_expected > 0) close_cell();
  const double df = cells - 1;
  if (df < 1) return 0;
  return (std::cbrt(statistic / df) - (1 - 2 / (9 * df))) / std::sqrt(2 / (9 * df));
}

// The seeds are fixed, so a pass is a pass for ever; 4 is p = 3e-5, far beyond what a right sampler shows
// and far below what a wrong one does at these counts (ChiSquareNoticesAWrongTemperature).
constexpr double kMaxDeviate = 4.0;

// Known answers of Random123's kat_vectors for philox4x32, 10 rounds.
TEST(Philox, MatchesThePublishedVectors) {
  EXPECT_EQ(philox4x32_10({0, 0, 0, 0}, {0, 0}),
            (PhiloxCounter{0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8}));
  constexpr std::uint32_t kOnes = 0xFFFFFFFF;
  EXPECT_EQ(philox4x32_10({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (PhiloxCounter{0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD}));
  EXPECT_EQ(philox4x32_10({0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344}, {0xA4093822, 0x299F31D0}),
            (PhiloxCounter{0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1}));
}

TEST(UniformDraw, UsesEveryBitOfItsArguments) {
  const float base = uniform_draw(1, 2, 3);
  EXPECT_EQ(base, uniform_draw(1, 2, 3));
  for (int bit = 0; bit < 64; ++bit) {
    const std::uint64_t flip = std::uint64_t{1} << bit;
    EXPECT_NE(uniform_draw(1 ^ flip, 2, 3), base);
    EXPECT_NE(uniform_draw(1, 2 ^ flip, 3), base);
    EXPECT_NE(uniform_draw(1, 2, 3 ^ flip), base);
  }
}

TEST(UniformDraw, IsUniformAndBelowOne) {
  std::vector<int> cells(256);
  constexpr int kDraws = 200000;
  for (std::uint64_t i = 0; i < kDraws; ++i) {
    const float draw = uniform_draw(11, 5, i);
    ASSERT_GE(draw, 0.0F);
    ASSERT_LT(draw, 1.0F);
    ++cells[static_cast<std::size_t>(draw * 256)];
  }
  double statistic = 0;
  for (const int seen : cells) statistic += std::pow(seen - kDraws / 256.0, 2) / (kDraws / 256.0);
  EXPECT_NEAR(statistic, 255, 5 * std::sqrt(2 * 255.0));
}

TEST(ChooseToken, GreedyTakesTheLowestIdAmongTheLargest) {
  std::vector<float> logits(50272, -1.0F);
  logits[40000] = logits[123] = logits[50271] = 3.0F;
  EXPECT_EQ(choose_token(logits, {}, 0.9F, {}), 123);
  SamplingParams cold = sampled(0.0F);
  EXPECT_EQ(choose_token(logits, cold, 0.9F, {}), 123);
}

TEST(ChooseToken, FollowsTheSoftmax) {
  std::mt19937 rng(1);
  const auto logits = random_logits(rng, 60, 2.0F, false);
  EXPECT_LT(std::abs(chi_square_deviate(logits, sampled(), 100000)), kMaxDeviate);
}

TEST(ChooseToken, FollowsTheTemperature) {
  std::mt19937 rng(2);
  const auto logits = random_logits(rng, 60, 2.0F, false);
  EXPECT_LT(std::abs(chi_square_deviate(logits, sampled(0.6F), 100000)), kMaxDeviate);
  EXPECT_LT(std::abs(chi_square_deviate(logits, sampled(1.7F), 100000)), kMaxDeviate);
}

TEST(ChooseToken, FollowsTopK) {
  std::mt19937 rng(3);
  const auto logits = random_logits(rng, 80, 1.0F, true);
  for (const int k : {2, 17, 79}) {
    EXPECT_LT(std::abs(chi_square_deviate(logits, sampled(1.0F, k), 100000)), kMaxDeviate) << k;
  }
}

TEST(ChooseToken, FollowsTopP) {
  std::mt19937 rng(4);
  const auto logits = random_logits(rng, 80, 2.0F, true);
  for (const float p : {0.3F, 0.9F, 0.999F}) {
    EXPECT_LT(std::abs(chi_square_deviate(logits, sampled(1.0F, 0, p), 100000)), kMaxDeviate) << p;
  }
}

TEST(ChooseToken, AppliesTemperatureThenTopKThenTopP) {
  std::mt19937 rng(5);
  const auto logits = random_logits(rng, 120, 2.0F, true);
  EXPECT_LT(std::abs(chi_square_deviate(logits, sampled(1.3F, 50, 0.8F), 100000)), kMaxDeviate);
}

TEST(ChooseToken, ChiSquareNoticesAWrongTemperature) {
  std::mt19937 rng(1);
  const auto logits = random_logits(rng, 60, 2.0F, false);
  const auto expected = distribution(logits, sampled());
  // The oracle at temperature 1 against draws at 0.95.
  std::vector<std::int64_t> seen(logits.size());
  std::vector<ScoredToken> scratch(logits.size());
  constexpr int kDraws = 200000;
  for (std::uint64_t i = 0; i < kDraws; ++i) {
    ++seen[static_cast<std::size_t>(choose_token(logits, sampled(0.95F), uniform_draw(7, 1, i), scratch))];
  }
  double statistic = 0;
  for (std::size_t i = 0; i < seen.size(); ++i) {
    statistic += std::pow(static_cast<double>(seen[i]) - expected[i] * kDraws, 2) / (expected[i] * kDraws);
  }
  EXPECT_GT(statistic, 59 + 10 * std::sqrt(2 * 59.0));
}

// On a full vocabulary the kept set is what the oracle keeps: the lowest and highest kept ids appear at the
// ends of the draw, and no draw leaves the set.
TEST(ChooseToken, KeepsWhatAFullSortKeepsOnALargeVocabulary) {
  std::mt19937 rng(6);
  for (const float spread : {0.01F, 1.0F, 4.0F}) {
    for (const bool ties : {false, true}) {
      const auto logits = random_logits(rng, 50272, spread, ties);
      for (const auto& params : {sampled(1.0F, 0, 0.9F), sampled(0.7F, 40, 0.95F), sampled(1.0F, 20000, 0.5F),
                                 sampled(1.0F, 1), sampled(1.0F, 50271), sampled(2.0F, 0, 1e-6F)}) {
        const auto p = distribution(logits, params);
        const auto first = std::find_if(p.begin(), p.end(), [](double x) { return x > 0; }) - p.begin();
        const auto last = p.rend() - std::find_if(p.rbegin(), p.rend(), [](double x) { return x > 0; }) - 1;
        EXPECT_EQ(choose(logits, params, 0.0F), first) << spread << ' ' << ties << ' ' << params.top_k;
        EXPECT_LE(choose(logits, params, 1.0F - 0x1p-24F), last);
        double mass = 0;
        std::size_t next = 0;
        for (const float draw : {0.1F, 0.37F, 0.5F, 0.83F, 0.99F}) {
          while (next < p.size() && mass + p[next] <= draw) mass += p[next++];
          const std::int32_t token = choose(logits, params, draw);
          EXPECT_GT(p[static_cast<std::size_t>(token)], 0);
          // Both sum 50272 terms in double: a neighbour is right only where the sums differ by rounding.
          if (std::abs(mass + p[next] - draw) > 1e-9 && std::abs(mass - draw) > 1e-9) {
            EXPECT_EQ(token, static_cast<std::int32_t>(next));
          }
        }
      }
    }
  }
}

TEST(ChooseToken, TopPKeepsTheSmallestSetThatReachesTheShare) {
  const std::vector<float> quarters(4, 1.5F);
  EXPECT_EQ(choose(quarters, sampled(1.0F, 0, 0.5F), 0.99F), 1);  // exactly half: two tokens
  EXPECT_EQ(choose(quarters, sampled(1.0F, 0, 0.51F), 0.99F), 2);
  EXPECT_EQ(choose(quarters, sampled(1.0F, 0, 0.01F), 0.99F), 0);  // always at least one
  EXPECT_EQ(choose(quarters, sampled(1.0F, 0, 1.0F), 0.99F), 3);
}

TEST(ChooseToken, TiesAtTheCutGoToTheLowerId) {
  const std::vector<float> logits{0, 2, 1, 1, 1};
  EXPECT_EQ(choose(logits, sampled(1.0F, 2), 0.999F), 2);
  EXPECT_EQ(choose(logits, sampled(1.0F, 3), 0.999F), 3);
}

TEST(ChooseToken, FiltersThatKeepAllChangeNothing) {
  std::mt19937 rng(8);
  const auto logits = random_logits(rng, 1000, 2.0F, true);
  for (std::uint64_t i = 0; i < 200; ++i) {
    const float draw = uniform_draw(3, 1, i);
    EXPECT_EQ(choose(logits, sampled(), draw), choose(logits, sampled(1.0F, 1000), draw));
    EXPECT_EQ(choose(logits, sampled(), draw), choose(logits, sampled(1.0F, 5000), draw));
  }
}

// The draw is a function of (seed, request, position) and the choice of one row: nothing of the batch enters.
TEST(ChooseToken, ARequestDrawsTheSameAtAnyBatchPosition) {
  std::mt19937 rng(9);
  constexpr std::size_t kVocab = 777;
  const auto mine = random_logits(rng, kVocab, 1.5F, false);
  const SamplingParams params = sampled(0.9F, 100, 0.95F);
  const std::int32_t alone = choose(mine, params, uniform_draw(params.seed, 42, 10));
  std::vector<ScoredToken> shared_scratch(kVocab);
  for (std::size_t at = 0; at < 6; ++at) {
    for (std::size_t row = 0; row < 6; ++row) {
      const auto logits = row == at ? mine : random_logits(rng, kVocab, 1.5F, false);
      const std::uint64_t request = row == at ? 42 : 1000 + row;
      const auto token = choose_token(logits, params, uniform_draw(params.seed, request, 10), shared_scratch);
      if (row == at) {
        EXPECT_EQ(token, alone);
      }
    }
  }
}

TEST(ChooseToken, NeverChoosesNanOrMinusInfinity) {
  const std::vector<float> logits{kNan, -kInf, 0.0F, kNan, 0.0F, -kInf};
  EXPECT_EQ(choose(logits, {}, 0), 2);
  for (const auto& params : {sampled(), sampled(1.0F, 3), sampled(1.0F, 0, 0.9F), sampled(1.0F, 5, 0.99F)}) {
    EXPECT_EQ(choose(logits, params, 0.0F), 2);
    EXPECT_EQ(choose(logits, params, 0.999F), 4);
  }
}

TEST(ChooseToken, InfinitiesShareTheMass) {
  const std::vector<float> logits{1.0F, kInf, 2.0F, kInf};
  EXPECT_EQ(choose(logits, sampled(), 0.49F), 1);
  EXPECT_EQ(choose(logits, sampled(), 0.51F), 3);
  EXPECT_EQ(choose(logits, sampled(1.0F, 0, 0.6F), 0.99F), 3);
}

TEST(ChooseToken, RefusesARowWithoutAnyToken) {
  EXPECT_THROW(choose({kNan, -kInf}, sampled(), 0.5F), Error);
  EXPECT_THROW(choose({}, {}, 0.5F), Error);
}

TEST(ChooseToken, AssertsItsPreconditions) {
  std::vector<float> logits{1, 2, 3};
  std::vector<ScoredToken> small(2);
  EXPECT_THROW(choose_token(logits, sampled(), 0.5F, small), Error);
  EXPECT_THROW(choose(logits, sampled(), 1.0F), Error);
}

// Half a unit from rounding to an integer; the polynomial and its 14 double roundings stay below a tenth.
TEST(SoftmaxWeight, IsTheExponentialInUnitsOfItsLargest) {
  for (const double inverse_temperature : {0.5, 1.0, 1 / 0.7, 1e5}) {
    const SoftmaxWeight weight{3.0, inverse_temperature};
    for (int i = 0; i < 100000; ++i) {
      const float logit = 3.0F - static_cast<float>(i) * 0.0007F;
      const double exact = std::exp((static_cast<double>(logit) - 3.0) * inverse_temperature);
      ASSERT_NEAR(static_cast<double>(weight(logit)), exact * static_cast<double>(kLargestWeight), 0.6)
          << logit;
    }
    EXPECT_EQ(weight(3.0F), kLargestWeight);
    EXPECT_EQ(weight(-kInf), 0U);
    EXPECT_EQ(weight(kNan), 0U);
  }
  const SoftmaxWeight infinite{kInf, 1.0};
  EXPECT_EQ(infinite(kInf), kLargestWeight);
  EXPECT_EQ(infinite(1e30F), 0U);
  EXPECT_EQ(infinite(-kInf), 0U);
}

TEST(SoftmaxWeight, TargetsLieWithinTheTotal) {
  for (const std::uint64_t total : {kLargestWeight, kLargestWeight * 3 + 1, (std::uint64_t{1} << 63) - 1}) {
    EXPECT_EQ(top_p_target(total, 1e-30F), 1U);
    EXPECT_LE(top_p_target(total, 1.0F - 0x1p-24F), total);
    EXPECT_EQ(draw_target(total, 0.0F), 0U);
    EXPECT_LT(draw_target(total, 1.0F - 0x1p-24F), total);
  }
  EXPECT_EQ(top_p_target(kLargestWeight * 4, 0.5F), kLargestWeight * 2);
}

TEST(LogSumExp, IsExactWhereItCanBe) {
  EXPECT_DOUBLE_EQ(log_sum_exp(std::vector<float>{0, 0, 0, 0}), std::log(4.0));
  EXPECT_DOUBLE_EQ(log_sum_exp(std::vector<float>{1000, 1000}), 1000 + std::log(2.0));
  EXPECT_DOUBLE_EQ(log_sum_exp(std::vector<float>{-2000, -kInf}), -2000);
  EXPECT_EQ(log_sum_exp(std::vector<float>{-kInf, -kInf}), -kInf);
  EXPECT_EQ(log_sum_exp({}), -kInf);
  EXPECT_EQ(log_sum_exp(std::vector<float>{0, kInf}), kInf);
  EXPECT_TRUE(std::isnan(log_sum_exp(std::vector<float>{0, kNan})));
}

TEST(TopTokens, AreTheFirstOfAFullSort) {
  std::mt19937 rng(10);
  for (const std::size_t size : {1, 5, 511, 513, 5000, 50272}) {
    for (const bool ties : {false, true}) {
      const auto logits = random_logits(rng, size, 2.0F, ties);
      std::vector<std::int32_t> rank(size);
      std::iota(rank.begin(), rank.end(), 0);
      std::stable_sort(rank.begin(), rank.end(), [&](auto a, auto b) {
        return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
      });
      std::vector<ScoredToken> scratch(size);
      for (const std::size_t count : {1, 5, 300, 3000}) {
        std::vector<ScoredToken> top(count);
        top_tokens(logits, top, scratch);
        for (std::size_t i = 0; i < count; ++i) {
          ASSERT_EQ(top[i].token_id, i < size ? rank[i] : -1) << size << ' ' << count << ' ' << i;
          ASSERT_EQ(top[i].logit, i < size ? logits[static_cast<std::size_t>(rank[i])] : -kInf);
        }
      }
    }
  }
}

TEST(TopTokens, LeavesOutNanAndHandlesRisingInput) {
  std::vector<float> logits(2000);
  std::iota(logits.begin(), logits.end(), 0.0F);
  logits[1999] = kNan;
  std::vector<ScoredToken> scratch(logits.size()), top(3);
  top_tokens(logits, top, scratch);
  EXPECT_EQ(top[0].token_id, 1998);
  EXPECT_EQ(top[2].token_id, 1996);
  top_tokens(logits, {}, scratch);
}

TEST(ValidateSampling, NamesTheParameter) {
  EXPECT_NO_THROW(validate(SamplingParams{}));
  const auto message = [](const SamplingParams& params) -> std::string {
    try {
      validate(params);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kInvalidArgument);
      return e.what();
    }
    return "";
  };
  EXPECT_NE(message(sampled(-0.1F)).find("temperature is -0.1"), std::string::npos);
  EXPECT_NE(message(sampled(kNan)).find("temperature"), std::string::npos);
  EXPECT_NE(message(sampled(kInf)).find("temperature"), std::string::npos);
  EXPECT_NE(message(sampled(1.0F, -3)).find("top_k is -3"), std::string::npos);
  EXPECT_NE(message(sampled(1.0F, 0, 0.0F)).find("top_p is 0"), std::string::npos);
  EXPECT_NE(message(sampled(1.0F, 0, 1.01F)).find("top_p"), std::string::npos);
  EXPECT_NE(message(sampled(1.0F, 0, kNan)).find("top_p"), std::string::npos);
}

}  // namespace
}  // namespace sluice
