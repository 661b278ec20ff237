#include "policy/placement.h"

#include <algorithm>

#include "core/error.h"
#include "core/units.h"

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

Placement overlapping(const Placement& placement) {
  Placement two = placement;
  const bool off_gpu = placement.percents.kv_cache[Tier::kGpu] < 100;
  if (!placement.cpu_attention || !off_gpu || placement.num_gpu_batches > 1 || placement.gpu_batch_size < 2)
    return two;
  two.num_gpu_batches = 2;
  two.gpu_batch_size = div_up(placement.gpu_batch_size, 2);
  return two;
}

void validate(const Placement& placement) {
  std::string problems;
  const auto add = [&](const std::string& problem) { problems += (problems.empty() ? "" : "; ") + problem; };
  const auto whole = [&](const PerTier<int>& share, const char* what) {
    const int sum = share[Tier::kGpu] + share[Tier::kCpu] + share[Tier::kDisk];
    bool in_range = sum == 100;
    for (Tier tier : kTiers) in_range = in_range && share[tier] >= 0;
    if (!in_range) add(fmt::format("{} percents sum to {}", what, sum));
  };
  whole(placement.percents.weights, "weight");
  whole(placement.percents.kv_cache, "KV cache");
  whole(placement.percents.activations, "activation");
  const auto bounded = [&](std::int64_t value, std::int64_t least, std::int64_t most, const char* what) {
    if (value < least || value > most)
      add(fmt::format("{} is {}, it may be {} to {}", what, value, least, most));
  };
  bounded(placement.gpu_batch_size, 1, kMostGpuBatchSize, "gpu_batch_size");
  bounded(placement.num_gpu_batches, 1, kMostGpuBatches, "num_gpu_batches");
  bounded(placement.prefetch_depth, 2, 1024, "prefetch_depth");
  if (placement.max_tokens_per_gpu_batch < placement.gpu_batch_size) {
    add(fmt::format("max_tokens_per_gpu_batch {} is below gpu_batch_size {}",
                    placement.max_tokens_per_gpu_batch, placement.gpu_batch_size));
  }
  SLUICE_CHECK(problems.empty(), Code::kInvalidArgument, fmt::format("placement: {}", problems),
               "see 'sluice generate --help'");
}

void Workload::add_request(std::int64_t prompt_len, std::int64_t gen_len) {
  max_prompt_len = std::max(max_prompt_len, prompt_len);
  max_gen_len = std::max(max_gen_len, gen_len);
  max_total_len = std::max(max_total_len, prompt_len + gen_len);
  ++num_requests;
  const auto pages = static_cast<std::size_t>(kv_pages(seat_tokens(prompt_len, gen_len)));
  if (pages > seat_demand.size()) seat_demand.resize(pages);
  // The pass of the prompt makes the first token, each of the others takes one more.
  if (pages > 0) seat_demand[pages - 1] += std::max<std::int64_t>(1, gen_len);
}

}  // namespace sluice::policy
