#include "policy/fill_memory.h"

#include <algorithm>
#include <tuple>

namespace sluice::policy {

bool fits(const PlanProblem& problem, const MemoryPlan& memory) { return fits(problem, memory.total); }

std::int64_t needed_bytes(const PlanProblem& problem, const PerTier<std::int64_t>& bytes, Tier tier) {
  if (tier != Tier::kGpu || !problem.holds_page_table) return bytes[tier];
  return bytes[tier] + page_table_bytes(bytes[Tier::kCpu]);
}

bool fits(const PlanProblem& problem, const PerTier<std::int64_t>& bytes) {
  for (const Tier tier : kTiers) {
    if (needed_bytes(problem, bytes, tier) > problem.budget_bytes[tier]) return false;
  }
  return problem.host_bytes < 0 || bytes[Tier::kGpu] + bytes[Tier::kCpu] <= problem.host_bytes;
}

namespace detail {
namespace {

constexpr int kAll = 100;  // percent

}  // namespace

MemoryPlan memory_of(const PlanProblem& problem, const Placement& placement) {
  return make_memory_plan(
      make_run_shape(problem.spec, problem.sizes, placement, problem.workload, problem.traits),
      problem.weights_on_disk);
}

WeightFill::WeightFill(const PlanProblem& problem)
    : problem_(problem),
      h2d_bytes_per_sec_(most_bytes_per_sec(problem.hardware.link.h2d)),
      disk_bytes_per_sec_(disk_bytes_per_sec(problem.hardware.disk.read)) {
  double all = 0;
  for (const TensorSize& tensor : problem.sizes) {
    const auto bytes = static_cast<double>(tensor.bytes);
    all += bytes;
    tensor_sec_ = std::max(tensor_sec_, stream_sec(bytes, bytes));
  }
  for (int gpu = kAll; gpu >= 0; --gpu) {
    for (int cpu = kAll - gpu; cpu >= 0; --cpu) {
      const int on_disk = kAll - gpu - cpu;
      shares_.push_back({.percent = {{gpu, cpu, on_disk}},
                         .asked_sec = stream_sec(all * (kAll - gpu) / kAll, all * on_disk / kAll)});
    }
  }
  std::stable_sort(shares_.begin(), shares_.end(),
                   [](const Share& a, const Share& b) { return a.asked_sec < b.asked_sec; });
}

double WeightFill::stream_sec(double off_gpu_bytes, double disk_bytes) const {
  return std::max(off_gpu_bytes / h2d_bytes_per_sec_, disk_bytes / disk_bytes_per_sec_);
}

void WeightFill::measure(Share& share, const RunShape& like) {
  if (!scratch_) scratch_ = like;
  replace_weights(*scratch_, problem_.sizes, share.percent);
  share.bytes = scratch_->weight_bytes;
  share.slot_bytes = scratch_->weight_slot_bytes;
  share.stage_bytes = scratch_->weight_stage_bytes;
  const auto on_disk = static_cast<double>(share.bytes[Tier::kDisk]);
  share.stream_sec = stream_sec(static_cast<double>(share.bytes[Tier::kCpu]) + on_disk, on_disk);
  share.known = true;
}

/// What slots and stages take depends on how the shares fall on tensors, so that a larger share may fit where
/// a smaller one does not, and a share may stream less than one that asks for less: all are looked at that
/// may be better than the best so far.
std::optional<Placement> WeightFill::fill(const PlanProblem& problem, Placement placement) {
  if (problem.choices.weights) {
    placement.percents.weights = *problem.choices.weights;
    return fits(problem, memory_of(problem, placement)) ? std::optional(placement) : std::nullopt;
  }
  RunShape shape = make_run_shape(problem.spec, problem.sizes, placement, problem.workload, problem.traits);
  shape.weight_bytes = {};
  set_weight_slots(shape, 0, 0);
  const MemoryPlan without = make_memory_plan(shape, problem.weights_on_disk);
  if (!fits(problem, without)) return std::nullopt;
  const bool no_disk = problem.disk_use == DiskUse::kNone ||
                       (problem.weights_on_disk && problem.budget_bytes[Tier::kDisk] == 0);
  const Share* best = nullptr;
  for (Share& share : shares_) {
    if (best != nullptr && share.asked_sec - tensor_sec_ >= best->stream_sec) break;
    if (no_disk && share.percent[Tier::kDisk] > 0) continue;
    if (!share.known) measure(share, shape);
    if (best != nullptr && share.stream_sec >= best->stream_sec) continue;
    shape.weight_bytes = share.bytes;
    set_weight_slots(shape, share.slot_bytes, share.stage_bytes);
    PerTier<std::int64_t> total = weight_memory(shape, problem.weights_on_disk);
    for (const Tier tier : kTiers) total[tier] += without.total[tier];
    if (fits(problem, total)) best = &share;
  }
  if (best == nullptr) return std::nullopt;
  placement.percents.weights = best->percent;
  return placement;
}

}  // namespace detail
}  // namespace sluice::policy
