// Golden runs: what transformers computed in fp32 for a bundled checkpoint, the requests that ask for the
// same, and how near the engine's answers must be.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "offload/engine.h"
#include "tests/e2e/e2e.h"

namespace sluice::testing {

/// Names of a checkpoint and of a file with its cases.
struct Golden {
  const char* checkpoint;
  const char* cases;
};

inline constexpr std::array<Golden, 4> kOptGoldens = {
    {{"tiny-opt-books-sparse80", "tiny-opt-books-sparse80.golden.json"},
     {"tiny-opt-books-sparse80", "tiny-opt-books-sparse80-long.golden.json"},
     {"rand-opt-postln", "rand-opt-postln.golden.json"},
     {"rand-opt-bin-sharded", "rand-opt-bin-sharded.golden.json"}}};

/// Scores every prompt and continues it greedily.
std::vector<offload::Request> golden_requests(const Golden& golden);

struct GoldenLimits {
  double worst_logprob_error = 0, mean_logprob_error = 0;  ///< over all tokens of the prompts
  double top2_gap = 0;  ///< of the two most likely tokens: below, either may be chosen
};

/// Fails the test if the results of golden_requests are beyond the limits; prints how near they are.
void expect_golden(const Golden& golden, std::span<const offload::Result> results,
                   const GoldenLimits& limits);

}  // namespace sluice::testing
