// Chooses a placement: the six percents, who attends, the block's shape, prefetch depth and workspace, so
// that the predicted run is the fastest that fits the memory. PLANNER.md beside this file tells how. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/format.h"
#include "core/model/spec.h"
#include "core/tier.h"
#include "policy/hardware.h"
#include "policy/memory_plan.h"
#include "policy/placement.h"
#include "policy/play_queue.h"
#include "policy/run_shape.h"
#include "policy/simulate.h"

namespace sluice::policy {

/// What the caller leaves to the planner, or not.
struct PlanChoices {
  std::optional<PerTier<int>> weights, kv_cache, activations;  ///< percents
  std::optional<bool> cpu_attention;
  std::int64_t gpu_batch_size = 0;            ///< 0: chosen
  std::int64_t num_gpu_batches = 0;           ///< 0: chosen
  std::int64_t prefetch_depth = 0;            ///< 0: chosen
  std::int64_t max_tokens_per_gpu_batch = 0;  ///< 0: chosen
  int attention_threads = 0;                  ///< of the CPU; 0: chosen, where a GPU is beside it
  KvFormat kv_format = KvFormat::kF16;
  bool mixing = true;
  bool prefetch = true;
};

/// Whether a plan may leave weights or KV on disk.
enum class DiskUse : std::uint8_t { kAllowed, kNone };

struct PlanProblem {
  ModelSpec spec;
  std::vector<TensorSize> sizes;  ///< stored, in model_tensors order
  std::vector<Encoding> formats;  ///< the same; empty: all dense
  Workload workload;
  std::vector<RequestLength> requests;
  /// As many requests as the block has seats, whatever the block: `requests` gives their lengths in turn.
  bool fill_block = false;
  std::int64_t most_seats = 0;  ///< with fill_block: no block has more; 0: no such bound
  DeviceTraits traits;
  HardwareProfile hardware;
  PerTier<std::int64_t> budget_bytes{};
  /// Where the GPU tier is host memory: what both memory tiers may take together; -1: no such bound.
  std::int64_t host_bytes = -1;
  /// What a stated GPU budget holds beside the tier and budget_bytes leaves out: remedies add it.
  std::int64_t beside_gpu_bytes = 0;
  /// budget_bytes of the GPU are stated, and the CPU tier is pinned: its page table (page_table_bytes) lies
  /// there.
  bool holds_page_table = false;
  bool weights_on_disk = false;  ///< disk weights count against the disk budget (synthetic models)
  DiskUse disk_use = DiskUse::kAllowed;
  PlanChoices choices;
  /// Most seconds from a request's start to its end (its prefill pass and its decode passes); 0: no bound.
  double max_latency_sec = 0;
  /// Steps that may be simulated in all: bounds the time of the search (7 million a second).
  std::int64_t step_budget = 20'000'000;
};

/// A placement with its prediction.
struct PlanCandidate {
  Placement placement;
  MemoryPlan memory;
  Simulation simulation;
  std::int64_t num_requests = 0;
  /// That attend on the CPU; 0: as many as the profile has at most, which `sluice profile` measures as what a
  /// run takes by itself.
  int attention_threads = 0;
  double tokens_per_sec() const { return simulation.tokens_per_sec(); }
};

/// How much faster a plan that uses the disk in every pass has to be than the best without it to be chosen:
/// no lane's rate is less certain than the disk's. PLANNER.md tells why it is not more.
inline constexpr double kLeastDiskGain = 1.015;

struct PlanResult {
  PlanCandidate best;
  /// The best plan without the disk, where `best` uses it; the best with it, where it gains less than
  /// kLeastDiskGain. Nothing if the other use of the disk was not found to fit, or not to be faster.
  std::optional<PlanCandidate> other_disk_use;
  std::vector<PlanCandidate> others;  ///< the next best of other kinds, best first, at most three
  std::int64_t num_estimated = 0, num_simulated = 0;
};

/// Why nothing fits.
struct PlanRefusal {
  std::string problem;  ///< with the missing bytes
  std::string remedy;
};

/// The best placement found, or why there is none. Throws Error{kInvalidArgument} for a workload that the
/// model's context does not hold, and for choices that contradict each other.
std::optional<PlanResult> make_plan(const PlanProblem& problem, PlanRefusal* refusal = nullptr);

/// The best that small changes of `start` lead to: what other budgets would bring. One that leaves the disk
/// alone is compared with such. Nothing if nothing like it fits.
std::optional<PlanCandidate> improve_plan(const PlanProblem& problem, const PlanCandidate& start);

/// Whether weights, KV or activations rest on disk.
bool uses_disk(const Placement& placement);

/// Whether `plan` is to be preferred to `other`: that which keeps the latency bound, or comes closer to it;
/// then that which is faster.
bool is_better(const PlanProblem& problem, const PlanCandidate& plan, const PlanCandidate& other);

/// Throws Error{kInvalidArgument}, naming the latency, for a plan that does not keep the bound: then none was
/// found that does, and the plan's is the smallest.
void check_latency(const PlanProblem& problem, const PlanCandidate& plan);

/// The prediction for a placement that somebody states, as the engine would run it (overlapping); nothing if
/// it does not fit.
std::optional<PlanCandidate> predict(const PlanProblem& problem, const Placement& placement);

/// What of a tier's budget a plan of `bytes` takes: they, and on the GPU the page table.
std::int64_t needed_bytes(const PlanProblem& problem, const PerTier<std::int64_t>& bytes, Tier tier);
/// Whether a plan, or what it takes in all, keeps the budgets.
bool fits(const PlanProblem& problem, const MemoryPlan& memory);
bool fits(const PlanProblem& problem, const PerTier<std::int64_t>& bytes);

}  // namespace sluice::policy
