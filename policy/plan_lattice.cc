#include "policy/plan_lattice.h"

#include <algorithm>

#include "core/units.h"
#include "policy/rates.h"

namespace sluice::policy::detail {
namespace {

constexpr std::int64_t kMostSeats = 4096;     // of a block, where the requests set no bound
constexpr std::int64_t kSeatsPerRequest = 2;  // at most, where seats that are left empty may pay
constexpr std::int64_t kParts = 32;           // of a workspace: the next smaller one has a part less
constexpr std::array<int, 4> kDepths = {2, 3, 4, 6};

}  // namespace

std::int64_t PlanLattice::most_requests() const {
  if (!problem_.fill_block) return std::ssize(problem_.requests);
  return problem_.most_seats > 0 ? std::min(kMostSeats, problem_.most_seats) : kMostSeats;
}

bool PlanLattice::kv_may_use_disk() const {
  return problem_.disk_use == DiskUse::kAllowed && problem_.budget_bytes[Tier::kDisk] > 0;
}

std::vector<std::int64_t> PlanLattice::batch_counts() const {
  if (problem_.choices.num_gpu_batches > 0) return {problem_.choices.num_gpu_batches};
  std::vector<std::int64_t> counts;
  for (const std::int64_t count : {1, 2, 3, 4, 6, 8}) {
    if (count == 1 || count <= most_requests()) counts.push_back(count);
  }
  return counts;
}

/// Of a stated number of batches the last may be left empty: fewer of them take all requests. Of a stated
/// share of the KV cache, seats that are left empty move those that are taken to the faster tier. A stated
/// workspace holds a row of every sequence.
std::int64_t PlanLattice::most_sequences(std::int64_t num_gpu_batches) const {
  const bool may_leave_one = problem_.choices.num_gpu_batches > 1 && num_gpu_batches > 1;
  const std::int64_t used = may_leave_one ? num_gpu_batches - 1 : num_gpu_batches;
  const auto& kv = problem_.choices.kv_cache;
  const bool is_divided = kv && std::count(kv->values.begin(), kv->values.end(), 0) < 2;
  const bool may_leave_seats = is_divided && !problem_.fill_block;
  const std::int64_t seats = (may_leave_seats ? kSeatsPerRequest : 1) * most_requests();
  const std::int64_t most = std::max<std::int64_t>(1, div_up(seats, used));
  const std::int64_t stated = problem_.choices.max_tokens_per_gpu_batch;
  return stated > 0 ? std::min(most, stated) : most;
}

std::vector<std::int64_t> PlanLattice::batch_sizes(std::int64_t num_gpu_batches) const {
  if (problem_.choices.gpu_batch_size > 0) return {problem_.choices.gpu_batch_size};
  const std::int64_t most = most_sequences(num_gpu_batches);
  std::vector<std::int64_t> sizes;
  for (std::int64_t size = 1; size < most; size = std::max(size + 1, size * 5 / 4)) sizes.push_back(size);
  for (std::int64_t blocks = 1; blocks <= 8; ++blocks) {
    sizes.push_back(div_up(most, blocks));
    sizes.push_back(std::min(most, div_up(most_requests(), blocks * num_gpu_batches)));
  }
  std::sort(sizes.begin(), sizes.end());
  sizes.erase(std::unique(sizes.begin(), sizes.end()), sizes.end());
  return sizes;
}

std::vector<std::int64_t> PlanLattice::batch_sizes(const PlanPoint& kind) const {
  const bool attends = kind.cpu_attention && kind.kv_cache[Tier::kGpu] < 100;
  const bool runs_as_two = attends && kind.num_gpu_batches == 1 && problem_.choices.num_gpu_batches == 0;
  if (runs_as_two && problem_.choices.gpu_batch_size == 0) return {1};
  return batch_sizes(kind.num_gpu_batches);
}

std::vector<PerTier<int>> PlanLattice::kv_shares() const {
  if (problem_.choices.kv_cache) return {*problem_.choices.kv_cache};
  std::vector<PerTier<int>> shares;
  for (const int gpu : {100, 75, 50, 25, 0}) shares.push_back({{gpu, 100 - gpu, 0}});
  if (kv_may_use_disk()) {
    shares.push_back({{0, 50, 50}});
    shares.push_back({{0, 0, 100}});
  }
  return shares;
}

std::vector<PlanPoint> PlanLattice::kinds() const {
  const PlanChoices& choices = problem_.choices;
  std::vector<PlanPoint> kinds;
  for (const std::int64_t batches : batch_counts()) {
    for (const PerTier<int>& kv : kv_shares()) {
      for (const bool attention : {true, false}) {
        if (attention && kv[Tier::kGpu] == 100 && choices.cpu_attention != true) continue;
        if (choices.cpu_attention.value_or(attention) != attention) continue;
        kinds.push_back({.num_gpu_batches = batches,
                         .cpu_attention = attention,
                         .kv_cache = kv,
                         .activations = choices.activations.value_or(PerTier<int>{{100, 0, 0}}),
                         .prefetch_depth = std::max<std::int64_t>(2, choices.prefetch_depth)});
      }
    }
  }
  return kinds;
}

std::vector<std::int64_t> PlanLattice::workspaces(const PlanPoint& point) const {
  const std::int64_t prompts = point.gpu_batch_size * problem_.workload.max_prompt_len;
  const std::int64_t most = std::max(point.gpu_batch_size, std::min(kMostTokens, prompts));
  const std::int64_t least = std::min(most, std::max(kLeastTokens, point.gpu_batch_size));
  std::vector<std::int64_t> sizes = {most};
  if (problem_.choices.max_tokens_per_gpu_batch > 0) return sizes;
  while (sizes.back() > least) sizes.push_back(std::max(least, sizes.back() / 4));
  return sizes;
}

std::vector<std::int64_t> PlanLattice::all_workspaces(const PlanPoint& point) const {
  std::vector<std::int64_t> sizes = workspaces(point);
  if (problem_.choices.max_tokens_per_gpu_batch > 0) return sizes;
  const std::int64_t prompt = problem_.workload.max_prompt_len;
  const std::int64_t least = sizes.back();
  const std::int64_t most = sizes.front();
  for (const std::int64_t passes : {2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20})
    sizes.push_back(std::clamp(div_up(point.gpu_batch_size * prompt, passes), least, most));
  for (const std::int64_t prompts : {1, 2, 3, 4}) sizes.push_back(std::clamp(prompts * prompt, least, most));
  std::sort(sizes.rbegin(), sizes.rend());
  sizes.erase(std::unique(sizes.begin(), sizes.end()), sizes.end());
  return sizes;
}

std::vector<std::int64_t> PlanLattice::close_workspaces(const PlanPoint& point) const {
  std::vector<std::int64_t> sizes;
  if (problem_.choices.max_tokens_per_gpu_batch > 0) return sizes;
  const std::int64_t least = std::max({kLeastTokens, point.gpu_batch_size, point.max_tokens / 8});
  const std::int64_t most = std::min(2 * point.max_tokens, kMostTokens);
  for (std::int64_t tokens = most; tokens >= least; tokens -= div_up(tokens, kParts)) sizes.push_back(tokens);
  return sizes;
}

std::vector<PlanPoint> PlanLattice::with_other_threads(const PlanPoint& at) const {
  const bool fixed = problem_.choices.attention_threads > 0 || problem_.hardware.memory.gpu_is_host;
  std::vector<PlanPoint> found;
  if (!at.cpu_attention || fixed) return found;
  const std::vector<int> counts = attention_threads(problem_.hardware);
  for (const int threads : counts) {
    const int next = threads == counts.back() ? 0 : threads;
    if (next == at.attention_threads) continue;
    found.push_back(at);
    found.back().attention_threads = next;
  }
  return found;
}

std::vector<PlanPoint> PlanLattice::neighbours(const PlanPoint& at) const {
  const PlanChoices& choices = problem_.choices;
  std::vector<PlanPoint> found;
  const auto change = [&](auto apply) {
    PlanPoint next = at;
    apply(next);
    found.push_back(next);
  };
  const std::int64_t most = most_sequences(at.num_gpu_batches);
  if (choices.gpu_batch_size == 0) {
    for (const std::int64_t asked :
         {at.gpu_batch_size * 9 / 8, at.gpu_batch_size + 1, at.gpu_batch_size - 1, at.gpu_batch_size * 7 / 8,
          at.gpu_batch_size * 2, at.gpu_batch_size / 2}) {
      const std::int64_t size = std::min(asked, most);
      if (size < 1 || size == at.gpu_batch_size) continue;
      change([&](PlanPoint& p) { p.gpu_batch_size = size; });
      if (choices.max_tokens_per_gpu_batch > 0) continue;
      const std::int64_t tokens = at.max_tokens * size / at.gpu_batch_size;  // in as many passes
      if (tokens < std::max(kLeastTokens, size) || tokens > kMostTokens) continue;
      change([&](PlanPoint& p) {
        p.gpu_batch_size = size;
        p.max_tokens = tokens;
      });
    }
  }
  if (choices.num_gpu_batches == 0) {
    for (const std::int64_t batches : {at.num_gpu_batches + 1, at.num_gpu_batches - 1}) {
      if (batches < 1 || batches > most_requests()) continue;
      const std::int64_t same_block = div_up(at.gpu_batch_size * at.num_gpu_batches, batches);
      for (const std::int64_t asked : {same_block, at.gpu_batch_size}) {
        const std::int64_t size =
            choices.gpu_batch_size > 0 ? choices.gpu_batch_size : std::min(asked, most_sequences(batches));
        change([&](PlanPoint& p) {
          p.num_gpu_batches = batches;
          p.gpu_batch_size = size;
        });
      }
    }
  }
  if (!choices.kv_cache) {
    const int gpu_now = at.kv_cache[Tier::kGpu];
    const int disk_now = at.kv_cache[Tier::kDisk];
    for (const int gpu : {gpu_now + 10, gpu_now + 3, gpu_now - 3, gpu_now - 10, 100 - disk_now, 0}) {
      if (gpu < 0 || gpu + disk_now > 100 || gpu == gpu_now) continue;
      change([&](PlanPoint& p) { p.kv_cache = {{gpu, 100 - gpu - disk_now, disk_now}}; });
    }
    for (const int disk : {disk_now - 25, disk_now + 25}) {
      if (disk < 0 || gpu_now + disk > 100 || !kv_may_use_disk()) continue;
      change([&](PlanPoint& p) { p.kv_cache = {{gpu_now, 100 - gpu_now - disk, disk}}; });
    }
  }
  if (!choices.cpu_attention) change([](PlanPoint& p) { p.cpu_attention = !p.cpu_attention; });
  if (choices.prefetch_depth == 0) {
    for (const int depth : kDepths) {
      if (depth != at.prefetch_depth) change([&](PlanPoint& p) { p.prefetch_depth = depth; });
    }
  }
  if (choices.max_tokens_per_gpu_batch == 0) {
    const auto may_have = [&](std::int64_t tokens) {
      return tokens >= std::max(kLeastTokens, at.gpu_batch_size) && tokens <= kMostTokens &&
             tokens != at.max_tokens;
    };
    for (const std::int64_t tokens :
         {at.max_tokens * 2, at.max_tokens / 2, at.max_tokens * 5 / 4, at.max_tokens * 4 / 5}) {
      if (may_have(tokens)) change([&](PlanPoint& p) { p.max_tokens = tokens; });
    }
  }
  for (const PlanPoint& next : with_other_threads(at)) found.push_back(next);
  if (!choices.activations) {
    change([](PlanPoint& p) {
      p.activations =
          p.activations[Tier::kGpu] == 100 ? PerTier<int>{{0, 100, 0}} : PerTier<int>{{100, 0, 0}};
    });
  }
  return found;
}

}  // namespace sluice::policy::detail
