// Runs that the tests of schedules build: a placement with its requests, drawn by a seed.
#pragma once

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "tests/policy/pass_driver.h"
#include "tests/policy/shapes.h"

namespace sluice::policy::testing {

/// A model, its placement, and what it runs.
struct Scenario {
  Placement placement;
  Workload workload;
  std::vector<DrivenRequest> requests;
  ModelSpec spec;
  std::string text() const {
    return fmt::format("percent {} attention {} batch {}x{} tokens {} depth {} mixing {} prefetch {}",
                       to_string(placement.percents), placement.cpu_attention, placement.gpu_batch_size,
                       placement.num_gpu_batches, placement.max_tokens_per_gpu_batch,
                       placement.prefetch_depth, placement.mixing, placement.prefetch);
  }
};

/// Any placement of a small model, and requests of a page more or less.
inline Scenario random_scenario(std::uint32_t seed) {
  std::mt19937 rng(seed);
  const auto pick = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(rng);
  };
  const auto shares = [&]() -> PerTier<int> {
    constexpr int kChoices[] = {0, 0, 25, 50, 100};
    const int gpu = kChoices[pick(0, 4)];
    const int cpu = std::min(100 - gpu, kChoices[pick(0, 4)]);
    return {{gpu, cpu, 100 - gpu - cpu}};
  };
  Scenario s;
  s.spec = opt_spec(pick(1, 5), 256, 4, 1024);
  s.placement.percents = {shares(), shares(), shares()};
  s.placement.cpu_attention = pick(0, 1) == 1;
  s.placement.mixing = pick(0, 3) != 0;
  s.placement.gpu_batch_size = pick(1, 4);
  s.placement.num_gpu_batches = pick(1, 4);
  s.placement.prefetch_depth = pick(2, 4);
  s.placement.max_tokens_per_gpu_batch = pick(std::max<std::int64_t>(s.placement.gpu_batch_size, 4), 500);
  const std::int64_t count = pick(1, 3 * s.placement.block_size());
  for (std::int64_t i = 0; i < count; ++i) {
    constexpr std::int64_t kLengths[] = {1, 63, 64, 65, 128, 200, 333};
    s.requests.push_back({kLengths[pick(0, 6)], pick(0, 12), pick(0, 4) == 0});
  }
  for (const DrivenRequest& r : s.requests) {
    s.workload.add_request(r.prompt_len, r.gen_len);
    if (r.wants_prompt_logprobs)
      s.workload.max_logprob_rows = std::max(s.workload.max_logprob_rows, r.prompt_len);
  }
  if (pick(0, 1) == 0) s.workload.seat_demand.clear();  // seats as long as the longest
  s.placement.prefetch = pick(0, 3) != 0;
  return s;
}

}  // namespace sluice::policy::testing
