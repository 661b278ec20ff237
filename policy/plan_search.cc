#include "policy/plan_search.h"

#include <algorithm>
#include <bit>
#include <set>
#include <tuple>
#include <utility>

namespace sluice::policy::detail {
namespace {

constexpr std::size_t kSimulated = 24;       // of the estimated ones at least,
constexpr std::size_t kMostSimulated = 96;   // and as long as a third of the steps lasts, so many
constexpr std::size_t kWithWorkspaces = 16;  // of the simulated ones, the best of as many kinds
constexpr std::size_t kClimbed = 16;         // the same
constexpr double kWorthClimbing = 1.5;       // of the least cost
constexpr std::int64_t kMany = 200;          // simulations: with as many ahead, none is left out
constexpr double kPromising = 1.1;           // of the cost that a change starts from
constexpr std::size_t kPairs = 300;          // of changes at once
constexpr double kBetter = 1 - 1e-6;
constexpr double kBeyond = 1e9;  // seconds: beyond every cost of a run that keeps the latency bound

/// The shape of the block, roughly, and who attends.
auto block_kind(const PlanPoint& point) {
  return std::tuple(point.cpu_attention, point.num_gpu_batches,
                    std::bit_width(static_cast<std::uint64_t>(point.gpu_batch_size)));
}

/// The same, and where the KV cache lies.
auto kind(const PlanPoint& point) { return std::tuple(block_kind(point), point.kv_cache.values); }

std::vector<PlanPoint> with_workspaces(const PlanPoint& point, const std::vector<std::int64_t>& sizes) {
  std::vector<PlanPoint> points(sizes.size(), point);
  for (std::size_t i = 0; i < sizes.size(); ++i) points[i].max_tokens = sizes[i];
  return points;
}

}  // namespace

std::vector<RequestLength> requests_for(const PlanProblem& problem, const Placement& placement) {
  if (!problem.fill_block) return problem.requests;
  std::vector<RequestLength> requests;
  for (std::size_t i = 0; i < static_cast<std::size_t>(placement.block_size()); ++i)
    requests.push_back(problem.requests[i % problem.requests.size()]);
  return requests;
}

int usable_threads(const Placement& placement, int asked) {
  const bool attends = placement.cpu_attention && placement.percents.kv_cache[Tier::kGpu] < 100;
  return attends ? asked : 0;
}

PlanSearch::PlanSearch(const PlanProblem& problem)
    : problem_(problem),
      lattice_(problem),
      rates_(problem.hardware),
      products_(problem.spec, problem.formats),
      means_(means_of(problem.requests)),
      weights_(problem),
      step_limit_(problem.step_budget) {}

std::optional<PlanResult> PlanSearch::run() {
  enumerate();
  if (estimated_.empty()) return std::nullopt;
  std::stable_sort(estimated_.begin(), estimated_.end(),
                   [](const Estimated& a, const Estimated& b) { return a.sec < b.sec; });
  simulate_best_estimates();
  if (problem_.max_latency_sec > 0) {
    std::stable_sort(estimated_.begin(), estimated_.end(), [this](const Estimated& a, const Estimated& b) {
      return penalty(a.block_sec) + a.sec < penalty(b.block_sec) + b.sec;
    });
    simulate_best_estimates();
  }
  simulate_threads();
  simulate_workspaces();
  climb();
  climb_from_best();
  return result();
}

std::optional<PlanCandidate> PlanSearch::improve(const PlanCandidate& candidate) {
  const Placement& start = candidate.placement;
  const PlanPoint point{.gpu_batch_size = start.gpu_batch_size,
                        .num_gpu_batches = start.num_gpu_batches,
                        .cpu_attention = start.cpu_attention,
                        .kv_cache = start.percents.kv_cache,
                        .activations = start.percents.activations,
                        .prefetch_depth = start.prefetch_depth,
                        .max_tokens = start.max_tokens_per_gpu_batch,
                        .attention_threads = candidate.attention_threads};
  // The largest block that fits now, with the others' shape.
  for (std::int64_t size : lattice_.batch_sizes(start.num_gpu_batches)) {
    if (size <= start.gpu_batch_size) continue;
    PlanPoint larger = point;
    larger.gpu_batch_size = size;
    if (play(larger) == nullptr) break;
  }
  play(point);
  if (played_.empty()) return std::nullopt;
  climb();
  return std::move(result().best);
}

void PlanSearch::enumerate() {
  for (const PlanPoint& kind : lattice_.kinds()) add_sizes(kind, lattice_.batch_sizes(kind));
}

/// Sizes ascend: once one does not fit, larger ones do not either.
void PlanSearch::add_sizes(PlanPoint point, const std::vector<std::int64_t>& sizes) {
  std::int64_t fitting = 0;
  std::int64_t too_large = 0;
  for (const std::int64_t size : sizes) {
    point.gpu_batch_size = size;
    if (add(point)) {
      fitting = size;
    } else {
      too_large = size;
      break;
    }
  }
  // The largest that fits lies between two of the lattice.
  while (too_large - fitting > 1) {
    const std::int64_t middle = fitting + (too_large - fitting) / 2;
    point.gpu_batch_size = middle;
    (add(point) ? fitting : too_large) = middle;
  }
}

/// With activations off the GPU if it does not fit otherwise.
bool PlanSearch::add(PlanPoint point) {
  if (add_workspaces(point)) return true;
  if (problem_.choices.activations) return false;
  point.activations = {{0, 100, 0}};
  return add_workspaces(point);
}

bool PlanSearch::add_workspaces(PlanPoint point) {
  bool any = false;
  for (const std::int64_t tokens : lattice_.workspaces(point)) {
    point.max_tokens = tokens;
    point = settled(point);
    const std::optional<Placement> placement = place(point);
    if (!placement) continue;
    estimated_.push_back(estimate_of(point, *placement));
    any = true;
  }
  return any;
}

PlanSearch::Estimated PlanSearch::estimate_of(const PlanPoint& point, const Placement& placement) {
  RequestMeans means = means_;
  if (problem_.fill_block) means.count = placement.block_size();
  const Estimate run = estimate(shape_of(placement), rates_with(point.attention_threads), products_, means);
  return {point, run.total_sec / static_cast<double>(means.count), run.block_sec};
}

RunShape PlanSearch::shape_of(const Placement& placement) const {
  return make_run_shape(problem_.spec, problem_.sizes, placement, problem_.workload, problem_.traits);
}

PlanPoint PlanSearch::settled(PlanPoint point) const {
  Placement asked;
  asked.gpu_batch_size = point.gpu_batch_size;
  asked.num_gpu_batches = point.num_gpu_batches;
  asked.cpu_attention = point.cpu_attention;
  asked.percents.kv_cache = point.kv_cache;
  const Placement runs = overlapping(asked);
  point.gpu_batch_size = runs.gpu_batch_size;
  point.num_gpu_batches = runs.num_gpu_batches;
  const std::int64_t stated = problem_.choices.max_tokens_per_gpu_batch;
  point.max_tokens = stated > 0 ? stated : std::max(point.max_tokens, point.gpu_batch_size);
  if (problem_.choices.attention_threads > 0) point.attention_threads = problem_.choices.attention_threads;
  point.attention_threads = usable_threads(asked, point.attention_threads);
  return point;
}

std::optional<Placement> PlanSearch::place(const PlanPoint& point) {
  const PlanChoices& choices = problem_.choices;
  if (point.max_tokens < point.gpu_batch_size) return std::nullopt;
  if (choices.gpu_batch_size > 0 && choices.num_gpu_batches == 0 &&
      point.gpu_batch_size != choices.gpu_batch_size)
    return std::nullopt;
  Placement placement;
  placement.gpu_batch_size = point.gpu_batch_size;
  placement.num_gpu_batches = point.num_gpu_batches;
  placement.cpu_attention = point.cpu_attention;
  placement.mixing = problem_.choices.mixing;
  placement.prefetch = problem_.choices.prefetch;
  placement.kv_format = problem_.choices.kv_format;
  placement.prefetch_depth = point.prefetch_depth;
  placement.percents.kv_cache = point.kv_cache;
  placement.percents.activations = point.activations;
  placement.max_tokens_per_gpu_batch = point.max_tokens;
  return weights_.fill(problem_, placement);
}

const PlanSearch::Played* PlanSearch::play(const PlanPoint& asked) {
  const PlanPoint point = settled(asked);
  const auto [known, is_new] = index_.try_emplace(point.key());
  if (!is_new) return known->second ? &played_[*known->second] : nullptr;
  const std::optional<Placement> placement = place(point);
  if (!placement) return nullptr;
  if (!may_simulate()) {
    index_.erase(known);
    return nullptr;
  }
  const RunShape shape = shape_of(*placement);
  PlanCandidate candidate{
      *placement, make_memory_plan(shape, problem_.weights_on_disk), {}, 0, point.attention_threads};
  const std::vector<RequestLength> requests = requests_for(problem_, *placement);
  candidate.num_requests = std::ssize(requests);
  candidate.simulation = simulate(shape, rates_with(point.attention_threads), products_, requests);
  for (const SimulatedLane& lane : candidate.simulation.lanes) steps_ += lane.steps;
  known->second = played_.size();
  played_.push_back({point, std::move(candidate)});
  return &played_.back();
}

const Rates& PlanSearch::rates_with(int threads) {
  if (threads == 0) return rates_;
  return rates_with_.try_emplace(threads, problem_.hardware, threads).first->second;
}

/// Seconds of a request.
double PlanSearch::cost(const Played& played) const {
  const Simulation& run = played.candidate.simulation;
  return run.total_sec / static_cast<double>(played.candidate.num_requests) +
         penalty(run.longest_request_sec);
}

/// A run that keeps the latency bound is better than any that does not.
double PlanSearch::penalty(double latency_sec) const {
  const double bound = problem_.max_latency_sec;
  return bound > 0 && latency_sec > bound ? kBeyond * (latency_sec / bound) : 0;
}

/// The best by estimate, and the best of each kind, so that an estimate that is wrong about a kind does not
/// hide it.
void PlanSearch::simulate_best_estimates() {
  const auto kind = [](const Estimated& e) {
    return std::tuple(e.point.cpu_attention, e.point.kv_cache.values, e.point.num_gpu_batches > 1);
  };
  std::map<decltype(kind(estimated_.front())), int> of_kind;
  std::size_t taken = 0;
  for (const Estimated& each : estimated_) {
    const int number = of_kind[kind(each)]++;
    const double worse = each.sec / estimated_.front().sec;
    const bool few = taken >= kSimulated / 2 && steps_ > problem_.step_budget / 4;
    const bool enough = taken >= kMostSimulated || (taken >= kSimulated && steps_ > problem_.step_budget / 3);
    if (number == 0 ? worse > (few ? 1.3 : 3) : few || enough || (taken >= kSimulated / 2 && worse >= 1.3))
      continue;
    play(each.point);
    ++taken;
  }
}

/// The best run that attends on the CPU, with other numbers of threads.
void PlanSearch::simulate_threads() {
  const auto attends = [](const PlanPoint& point) { return point.cpu_attention; };
  for (const std::size_t start : best_of_kinds(2, attends)) {
    for (const PlanPoint& point : lattice_.with_other_threads(played_[start].point)) play(point);
  }
}

template <class Kind>
std::vector<std::size_t> PlanSearch::best_of_kinds(std::size_t most, Kind kind) const {
  std::vector<std::size_t> order(played_.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return cost(played_[a]) < cost(played_[b]); });
  std::vector<std::size_t> best;
  std::set<decltype(kind(PlanPoint{}))> seen;
  for (const std::size_t i : order) {
    if (best.size() < most && seen.insert(kind(played_[i].point)).second) best.push_back(i);
  }
  return best;
}

/// Estimates know least of how prompts fall into passes. Takes at most half of the steps that are left.
void PlanSearch::simulate_workspaces() {
  step_limit_ = steps_ + (problem_.step_budget - steps_) / 2;
  for (const std::size_t start : best_of_kinds(kWithWorkspaces, block_kind)) {
    if (!may_simulate()) break;
    const PlanPoint& from = played_[start].point;
    for (const PlanPoint& point : by_promise(start, with_workspaces(from, lattice_.all_workspaces(from))))
      play(point);
  }
}

/// Simulated steps that take about as long as an estimate.
std::int64_t PlanSearch::estimate_steps(const PlanPoint& point) const {
  return 2 * problem_.spec.num_layers * point.num_gpu_batches + point.gpu_batch_size * point.num_gpu_batches;
}

std::vector<PlanPoint> PlanSearch::by_promise(std::size_t at, const std::vector<PlanPoint>& points) {
  const Played& from = played_[at];
  const bool late = cost(from) >= kBeyond;
  const auto promise = [&](const Estimated& each) { return late ? each.block_sec : each.sec; };
  const double here = promise(estimate_of(from.point, from.candidate.placement));
  std::int64_t steps = 0;
  for (const SimulatedLane& lane : from.candidate.simulation.lanes) steps += lane.steps;
  const bool few = steps_ + kMany * steps > problem_.step_budget;
  std::vector<Estimated> found;
  std::set<Key> seen;
  for (const PlanPoint& each : points) {
    const PlanPoint point = settled(each);
    if (index_.contains(point.key()) || !seen.insert(point.key()).second) continue;
    if (!may_simulate()) break;
    steps_ += estimate_steps(point);
    const std::optional<Placement> placement = place(point);
    if (!placement) continue;
    const Estimated next = estimate_of(point, *placement);
    if (few && promise(next) > kPromising * here) continue;
    found.push_back(next);
  }
  std::stable_sort(found.begin(), found.end(),
                   [&](const Estimated& a, const Estimated& b) { return promise(a) < promise(b); });
  std::vector<PlanPoint> sorted;
  for (const Estimated& each : found) sorted.push_back(each.point);
  return sorted;
}

std::optional<std::size_t> PlanSearch::first_better(std::size_t at, const std::vector<PlanPoint>& points) {
  const double least = cost(played_[at]) * kBetter;
  for (const PlanPoint& point : points) {
    const Played* played = play(point);
    if (played != nullptr && cost(*played) < least) return played - played_.data();
    if (!may_simulate()) break;
  }
  return std::nullopt;
}

/// From the best of a few kinds, each with at most half of the steps that are left.
void PlanSearch::climb() {
  const std::vector<std::size_t> starts = best_of_kinds(kClimbed, kind);
  const double least = cost(played_[starts.front()]);
  for (const std::size_t start : starts) {
    if (cost(played_[start]) > kWorthClimbing * least) continue;
    step_limit_ = steps_ + (problem_.step_budget - steps_) / 2;
    climb_from(start);
  }
}

void PlanSearch::climb_from(std::size_t start) {
  for (std::optional<std::size_t> at = start; at && may_simulate();)
    at = first_better(*at, by_promise(*at, lattice_.neighbours(played_[*at].point)));
}

/// From the best of all, and on from what that finds: workspaces close to its own, then two changes at once.
void PlanSearch::climb_from_best() {
  step_limit_ = problem_.step_budget;
  while (may_simulate()) {
    const std::size_t at = best_of_kinds(1, kind).front();
    const PlanPoint& best = played_[at].point;
    std::optional<std::size_t> better =
        first_better(at, by_promise(at, with_workspaces(best, lattice_.close_workspaces(best))));
    if (!better) better = first_better(at, pairs_of_changes(at));
    if (!better) break;
    climb_from(*better);
  }
}

std::vector<PlanPoint> PlanSearch::pairs_of_changes(std::size_t at) {
  std::vector<PlanPoint> pairs;
  for (const PlanPoint& first : lattice_.neighbours(played_[at].point)) {
    const std::vector<PlanPoint> neighbours = lattice_.neighbours(settled(first));
    pairs.insert(pairs.end(), neighbours.begin(), neighbours.end());
    const std::vector<PlanPoint> others = with_workspaces(first, lattice_.all_workspaces(settled(first)));
    pairs.insert(pairs.end(), others.begin(), others.end());
  }
  pairs = by_promise(at, pairs);
  pairs.resize(std::min(pairs.size(), kPairs));
  return pairs;
}

/// Moves to the front what needs the disk, then memory off the GPU, then a stated number of threads least of
/// all that are as fast as the fastest: a difference below that of prediction and run is worth none of them.
void PlanSearch::prefer_simple() {
  if (cost(played_.front()) >= kBeyond) return;  // no bound is kept: the smallest latency is what counts
  constexpr double kTie = 1.005;
  const auto simple = [](const Played& played) {
    const Percents& percents = played.candidate.placement.percents;
    return std::tuple(percents.kv_cache[Tier::kDisk] + percents.weights[Tier::kDisk],
                      percents.kv_cache[Tier::kCpu] + percents.activations[Tier::kCpu],
                      played.point.attention_threads > 0);
  };
  const double most = kTie * cost(played_.front());
  auto best = played_.begin();
  for (auto each = played_.begin() + 1; each != played_.end() && cost(*each) <= most; ++each) {
    if (simple(*each) < simple(*best)) best = each;
  }
  std::rotate(played_.begin(), best, best + 1);
}

PlanResult PlanSearch::result() {
  std::stable_sort(played_.begin(), played_.end(),
                   [&](const Played& a, const Played& b) { return cost(a) < cost(b); });
  prefer_simple();
  PlanResult found;
  found.num_estimated = std::ssize(estimated_);
  found.num_simulated = std::ssize(played_);
  const auto kind = [](const PlanPoint& p) {
    return std::tuple(p.cpu_attention, p.kv_cache[Tier::kGpu] > 0);
  };
  std::vector<decltype(kind(played_.front().point))> kinds;
  for (Played& each : played_) {
    if (std::find(kinds.begin(), kinds.end(), kind(each.point)) != kinds.end()) continue;
    kinds.push_back(kind(each.point));
    if (kinds.size() == 1) {
      found.best = std::move(each.candidate);
    } else {
      found.others.push_back(std::move(each.candidate));
    }
  }
  return found;
}

}  // namespace sluice::policy::detail
