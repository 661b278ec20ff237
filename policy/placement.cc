#include "policy/placement.h"

#include "core/error.h"

namespace sluice::policy {

Percents parse_percents(const std::vector<int>& six) {
  SLUICE_CHECK(six.size() == 6, Code::kInvalidArgument,
               fmt::format("--percent needs six numbers, got {}", six.size()),
               "give W-gpu W-cpu C-gpu C-cpu A-gpu A-cpu, for example 20 80 0 100 0 100");
  constexpr const char* kNames[] = {"weights", "KV cache", "activations"};
  Percents result;
  PerTier<int>* const targets[] = {&result.weights, &result.kv_cache, &result.activations};
  for (std::size_t i = 0; i < 3; ++i) {
    const int gpu = six[2 * i];
    const int cpu = six[2 * i + 1];
    SLUICE_CHECK(gpu >= 0 && cpu >= 0 && gpu + cpu <= 100, Code::kInvalidArgument,
                 fmt::format("--percent: {} have {} % on the GPU and {} % on the CPU", kNames[i], gpu, cpu),
                 "give numbers from 0 to 100 whose sum is at most 100; the rest goes to disk");
    *targets[i] = {{gpu, cpu, 100 - gpu - cpu}};
  }
  return result;
}

std::string to_string(const Percents& p) {
  return fmt::format("{} {} {} {} {} {}", p.weights[Tier::kGpu], p.weights[Tier::kCpu],
                     p.kv_cache[Tier::kGpu], p.kv_cache[Tier::kCpu], p.activations[Tier::kGpu],
                     p.activations[Tier::kCpu]);
}

void validate(const Placement& placement) {
  std::string problems;
  const auto require = [&](bool ok, const std::string& problem) {
    if (!ok) problems += (problems.empty() ? "" : "; ") + problem;
  };
  const auto whole = [&](const PerTier<int>& share, const char* what) {
    const int sum = share[Tier::kGpu] + share[Tier::kCpu] + share[Tier::kDisk];
    bool in_range = sum == 100;
    for (Tier tier : kTiers) in_range = in_range && share[tier] >= 0;
    require(in_range, fmt::format("{} percents sum to {}", what, sum));
  };
  whole(placement.percents.weights, "weight");
  whole(placement.percents.kv_cache, "KV cache");
  whole(placement.percents.activations, "activation");
  require(placement.gpu_batch_size >= 1, fmt::format("gpu_batch_size is {}", placement.gpu_batch_size));
  require(placement.num_gpu_batches >= 1, fmt::format("num_gpu_batches is {}", placement.num_gpu_batches));
  require(placement.max_tokens_per_gpu_batch >= placement.gpu_batch_size,
          fmt::format("max_tokens_per_gpu_batch {} is below gpu_batch_size {}",
                      placement.max_tokens_per_gpu_batch, placement.gpu_batch_size));
  require(placement.prefetch_depth >= 2,
          fmt::format("prefetch_depth is {}, the least is 2", placement.prefetch_depth));
  SLUICE_CHECK(problems.empty(), Code::kInvalidArgument, fmt::format("placement: {}", problems),
               "see 'sluice generate --help'");
}

}  // namespace sluice::policy
