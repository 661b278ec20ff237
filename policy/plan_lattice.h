// The points that the planner looks at: what distinguishes placements before weights fill what is left, a
// lattice of them, and the neighbours of one. What a problem states stays as stated. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <tuple>
#include <vector>

#include "policy/planner.h"

namespace sluice::policy::detail {

inline constexpr std::int64_t kLeastTokens = 64;  ///< of a workspace: below, prefill would crawl
inline constexpr std::int64_t kMostTokens = 8192;

struct PlanPoint {
  std::int64_t gpu_batch_size = 1, num_gpu_batches = 1;
  bool cpu_attention = false;
  PerTier<int> kv_cache{{0, 100, 0}}, activations{{100, 0, 0}};
  std::int64_t prefetch_depth = 2, max_tokens = kMostTokens;
  int attention_threads = 0;  ///< 0: as many as the profile has at most

  auto key() const {
    return std::tuple(gpu_batch_size, num_gpu_batches, cpu_attention, kv_cache.values, activations.values,
                      prefetch_depth, max_tokens, attention_threads);
  }
};

class PlanLattice {
 public:
  /// `problem` outlives the lattice.
  explicit PlanLattice(const PlanProblem& problem) : problem_(problem) {}

  std::vector<std::int64_t> batch_counts() const;
  /// Sizes of one GPU batch: a geometric series, and those that divide the requests evenly into blocks.
  std::vector<std::int64_t> batch_sizes(std::int64_t num_gpu_batches) const;
  /// Those of a kind: one GPU batch of more than one sequence runs as two where the CPU attends
  /// (overlapping), which is a kind of its own.
  std::vector<std::int64_t> batch_sizes(const PlanPoint& kind) const;
  /// Every combination of batch count, KV share and who attends, all with one sequence a batch.
  std::vector<PlanPoint> kinds() const;
  /// Sizes of the workspace for a point, descending. A larger one means fewer passes for the prompts, a
  /// smaller one leaves room for weights.
  std::vector<std::int64_t> workspaces(const PlanPoint& point) const;
  /// More of them: those that take the prompts of a GPU batch in so many passes, and whole prompts.
  std::vector<std::int64_t> all_workspaces(const PlanPoint& point) const;
  /// From twice the point's own to an eighth, each a 32nd smaller than the one before: not every way in which
  /// prompts fall into passes, but most of what makes a difference (PLANNER.md).
  std::vector<std::int64_t> close_workspaces(const PlanPoint& point) const;
  /// The point with each other number of threads that the profile measured. Where the GPU is the CPU, its
  /// threads do everything.
  std::vector<PlanPoint> with_other_threads(const PlanPoint& point) const;
  /// What one change makes of a point.
  std::vector<PlanPoint> neighbours(const PlanPoint& at) const;

 private:
  bool kv_may_use_disk() const;
  std::int64_t most_requests() const;
  /// Of one GPU batch.
  std::int64_t most_sequences(std::int64_t num_gpu_batches) const;
  std::vector<PerTier<int>> kv_shares() const;

  const PlanProblem& problem_;
};

}  // namespace sluice::policy::detail
