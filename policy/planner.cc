#include "policy/planner.h"

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <tuple>

#include "core/error.h"
#include "core/units.h"
#include "policy/estimate.h"
#include "policy/fill_memory.h"
#include "policy/rates.h"

namespace sluice::policy {
namespace {

using detail::fill_weights;
using detail::memory_of;

constexpr std::int64_t kLeastTokens = 64;  // below this, prefill would crawl
constexpr std::int64_t kMostTokens = 8192;
constexpr std::int64_t kMostSeats = 4096;   // of a block, where the requests set no bound
constexpr std::size_t kSimulated = 24;      // of the estimated ones at least,
constexpr std::size_t kMostSimulated = 96;  // and as long as a third of the steps lasts, so many
constexpr std::size_t kClimbed = 3;         // of the simulated ones
constexpr std::array<int, 4> kDepths = {2, 3, 4, 6};

/// The requests that a placement is judged by.
std::vector<RequestLength> requests_for(const PlanProblem& problem, const Placement& placement) {
  if (!problem.fill_block) return problem.requests;
  std::vector<RequestLength> requests;
  for (std::size_t i = 0; i < static_cast<std::size_t>(placement.block_size()); ++i)
    requests.push_back(problem.requests[i % problem.requests.size()]);
  return requests;
}

/// What distinguishes placements before weights fill what is left: one point of the search.
struct Point {
  std::int64_t gpu_batch_size = 1, num_gpu_batches = 1;
  bool cpu_attention = false;
  PerTier<int> kv_cache{{0, 100, 0}}, activations{{100, 0, 0}};
  std::int64_t prefetch_depth = 2, max_tokens = kMostTokens;

  auto key() const {
    return std::tuple(gpu_batch_size, num_gpu_batches, cpu_attention, kv_cache.values, activations.values,
                      prefetch_depth, max_tokens);
  }
};

struct Estimated {
  Point point;
  Placement placement;
  double sec = 0;
};

class Search {
 public:
  explicit Search(const PlanProblem& problem)
      : problem_(problem),
        rates_(problem.hardware),
        products_(problem.spec, problem.formats),
        means_(means_of(problem.requests)) {}

  std::optional<PlanCandidate> improve(const Placement& start) {
    const Point point{.gpu_batch_size = start.gpu_batch_size,
                      .num_gpu_batches = start.num_gpu_batches,
                      .cpu_attention = start.cpu_attention,
                      .kv_cache = start.percents.kv_cache,
                      .activations = start.percents.activations,
                      .prefetch_depth = start.prefetch_depth,
                      .max_tokens = start.max_tokens_per_gpu_batch};
    // The largest block that fits now, with the others' shape.
    for (std::int64_t size : batch_sizes(start.num_gpu_batches)) {
      if (size <= start.gpu_batch_size) continue;
      Point larger = point;
      larger.gpu_batch_size = size;
      if (play(larger) == nullptr) break;
    }
    play(point);
    if (played_.empty()) return std::nullopt;
    climb();
    return std::move(result().best);
  }

  std::optional<PlanResult> run() {
    enumerate();
    if (estimated_.empty()) return std::nullopt;
    std::stable_sort(estimated_.begin(), estimated_.end(),
                     [](const Estimated& a, const Estimated& b) { return a.sec < b.sec; });
    simulate_best_estimates();
    climb();
    return result();
  }

 private:
  struct Played {
    Point point;
    PlanCandidate candidate;
  };

  // ---- The requests.

  std::int64_t most_requests() const { return problem_.fill_block ? kMostSeats : means_.count; }

  std::vector<RequestLength> requests_of(const Placement& placement) const {
    return requests_for(problem_, placement);
  }

  // ---- The lattice.

  std::vector<std::int64_t> batch_counts() const {
    if (problem_.choices.num_gpu_batches > 0) return {problem_.choices.num_gpu_batches};
    std::vector<std::int64_t> counts;
    for (const std::int64_t count : {1, 2, 3, 4, 6, 8}) {
      if (count == 1 || count <= most_requests()) counts.push_back(count);
    }
    return counts;
  }

  /// Sizes of one GPU batch: a geometric lattice, and those that divide the requests evenly into blocks.
  std::vector<std::int64_t> batch_sizes(std::int64_t num_gpu_batches) const {
    if (problem_.choices.gpu_batch_size > 0) return {problem_.choices.gpu_batch_size};
    const std::int64_t most = std::max<std::int64_t>(1, div_up(most_requests(), num_gpu_batches));
    std::vector<std::int64_t> sizes;
    for (std::int64_t size = 1; size < most; size = std::max(size + 1, size * 5 / 4)) sizes.push_back(size);
    for (std::int64_t blocks = 1; blocks <= 8; ++blocks) sizes.push_back(div_up(most, blocks));
    std::sort(sizes.begin(), sizes.end());
    sizes.erase(std::unique(sizes.begin(), sizes.end()), sizes.end());
    return sizes;
  }

  std::vector<PerTier<int>> kv_shares() const {
    if (problem_.choices.kv_cache) return {*problem_.choices.kv_cache};
    std::vector<PerTier<int>> shares;
    for (const int gpu : {100, 75, 50, 25, 0}) shares.push_back({{gpu, 100 - gpu, 0}});
    if (problem_.budget_bytes[Tier::kDisk] > 0) {
      shares.push_back({{0, 50, 50}});
      shares.push_back({{0, 0, 100}});
    }
    return shares;
  }

  void enumerate() {
    for (const std::int64_t batches : batch_counts()) {
      const std::vector<std::int64_t> sizes = batch_sizes(batches);
      for (const PerTier<int>& kv : kv_shares()) {
        for (const bool attention : {true, false}) {
          if (attention && kv[Tier::kGpu] == 100 && problem_.choices.cpu_attention != true) continue;
          if (problem_.choices.cpu_attention.value_or(attention) != attention) continue;
          add_sizes({.num_gpu_batches = batches,
                     .cpu_attention = attention,
                     .kv_cache = kv,
                     .activations = problem_.choices.activations.value_or(PerTier<int>{{100, 0, 0}}),
                     .prefetch_depth = std::max<std::int64_t>(2, problem_.choices.prefetch_depth)},
                    sizes);
        }
      }
    }
  }

  /// Sizes ascend: once one does not fit, larger ones do not either.
  void add_sizes(Point point, const std::vector<std::int64_t>& sizes) {
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

  /// Estimates the point, with activations off the GPU if it does not fit otherwise. False if it does not
  /// fit.
  bool add(Point point) {
    if (add_workspaces(point)) return true;
    if (problem_.choices.activations) return false;
    point.activations = {{0, 100, 0}};
    return add_workspaces(point);
  }

  /// Workspaces of several sizes: a larger one means fewer passes for the prompts, a smaller one leaves room
  /// for weights.
  bool add_workspaces(Point point) {
    const std::int64_t prompts = point.gpu_batch_size * problem_.workload.max_prompt_len;
    const std::int64_t most = std::max(point.gpu_batch_size, std::min(kMostTokens, prompts));
    const std::int64_t least = std::min(most, std::max(kLeastTokens, point.gpu_batch_size));
    bool any = false;
    for (std::int64_t tokens = most;; tokens = std::max(least, tokens / 4)) {
      point.max_tokens = tokens;
      if (const std::optional<Placement> placement = place(point)) {
        estimated_.push_back({point, *placement, estimate_sec(*placement)});
        any = true;
        if (placement->percents.weights[Tier::kGpu] == 100) break;
      }
      if (tokens == least || problem_.choices.max_tokens_per_gpu_batch > 0) break;
    }
    return any;
  }

  double estimate_sec(const Placement& placement) const {
    const RunShape shape = shape_of(placement);
    RequestMeans means = means_;
    if (problem_.fill_block) means.count = placement.block_size();
    const double sec = estimate(shape, rates_, products_, means).total_sec;
    return sec / static_cast<double>(means.count);
  }

  RunShape shape_of(const Placement& placement) const {
    return make_run_shape(problem_.spec, problem_.sizes, placement, problem_.workload, problem_.traits);
  }

  /// The placement of a point, weights filled in.
  std::optional<Placement> place(Point& point) const {
    Placement placement;
    placement.gpu_batch_size = point.gpu_batch_size;
    placement.num_gpu_batches = point.num_gpu_batches;
    placement.cpu_attention = point.cpu_attention;
    placement.mixing = problem_.choices.mixing;
    placement.kv_format = problem_.choices.kv_format;
    placement.prefetch_depth = point.prefetch_depth;
    placement.percents.kv_cache = point.kv_cache;
    placement.percents.activations = point.activations;
    const std::int64_t stated = problem_.choices.max_tokens_per_gpu_batch;
    point.max_tokens = std::max(stated > 0 ? stated : point.max_tokens, point.gpu_batch_size);
    placement.max_tokens_per_gpu_batch = point.max_tokens;
    return fill_weights(problem_, placement);
  }

  // ---- Simulation.

  bool may_simulate() const { return played_.empty() || steps_ < problem_.step_budget; }

  /// Plays the point unless it was; null if it does not fit or the budget is spent.
  const Played* play(const Point& asked) {
    Point point = asked;
    const std::optional<Placement> placement = place(point);
    if (!placement) return nullptr;
    const auto known = index_.find(point.key());
    if (known != index_.end()) return &played_[known->second];
    if (!may_simulate()) return nullptr;
    PlanCandidate candidate{*placement, memory_of(problem_, *placement), {}, 0};
    if (!fits(problem_, candidate.memory)) return nullptr;
    const std::vector<RequestLength> requests = requests_of(*placement);
    candidate.num_requests = std::ssize(requests);
    candidate.simulation =
        simulate(shape_of(*placement), problem_.hardware, requests, {.formats = problem_.formats});
    for (const SimulatedLane& lane : candidate.simulation.lanes) steps_ += lane.steps;
    index_[point.key()] = played_.size();
    played_.push_back({point, std::move(candidate)});
    return &played_.back();
  }

  /// Seconds of a request; smaller is better. A run that keeps the latency bound is better than any that does
  /// not.
  double cost(const Played& played) const {
    const Simulation& run = played.candidate.simulation;
    const double excess = problem_.max_latency_sec > 0 ? latency_sec(run) - problem_.max_latency_sec : 0;
    return run.total_sec / static_cast<double>(played.candidate.num_requests) +
           (excess > 0 ? 1e9 * (1 + excess) : 0);
  }

  /// What a request takes that is admitted first: its prefill pass and as many passes as it has tokens.
  double latency_sec(const Simulation& run) const {
    double worst = 0;
    const auto length = static_cast<std::size_t>(std::max<std::int64_t>(1, problem_.workload.max_gen_len));
    double window = 0;
    for (std::size_t i = 0; i < run.passes.size(); ++i) {
      window += run.passes[i].sec;
      if (i >= length) window -= run.passes[i - length].sec;
      worst = std::max(worst, window);
    }
    return worst;
  }

  /// The best by estimate, and the best of each kind, so that an estimate that is wrong about a kind does not
  /// hide it.
  void simulate_best_estimates() {
    const auto kind = [](const Estimated& e) {
      return std::tuple(e.point.cpu_attention, e.point.kv_cache.values, e.point.num_gpu_batches > 1);
    };
    std::map<decltype(kind(estimated_.front())), int> of_kind;
    std::size_t taken = 0;
    for (const Estimated& each : estimated_) {
      const int number = of_kind[kind(each)]++;
      const bool good = taken < kSimulated / 2 || each.sec < 1.3 * estimated_.front().sec;
      const bool enough =
          taken >= kMostSimulated || (taken >= kSimulated && steps_ > problem_.step_budget / 3);
      if (enough && number > 0) continue;
      if (!good && number > 0) continue;
      if (!good && each.sec > 3 * estimated_.front().sec) continue;
      play(each.point);
      ++taken;
    }
  }

  /// From the best few, one change at a time as long as it helps.
  void climb() {
    std::vector<std::size_t> order(played_.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return cost(played_[a]) < cost(played_[b]); });
    for (std::size_t i = 0; i < std::min(kClimbed, order.size()); ++i) {
      Point at = played_[order[i]].point;
      double best = cost(played_[order[i]]);
      for (bool better = true; better && may_simulate();) {
        better = false;
        for (const Point& next : neighbours(at)) {
          const Played* played = play(next);
          if (played == nullptr || cost(*played) >= best * (1 - 1e-6)) continue;
          best = cost(*played);
          at = played->point;
          better = true;
          break;
        }
      }
    }
  }

  std::vector<Point> neighbours(const Point& at) const {
    const PlanChoices& choices = problem_.choices;
    std::vector<Point> found;
    const auto change = [&](auto apply) {
      Point next = at;
      apply(next);
      found.push_back(next);
    };
    const std::int64_t most = std::max<std::int64_t>(1, div_up(most_requests(), at.num_gpu_batches));
    if (choices.gpu_batch_size == 0) {
      for (const std::int64_t size : {at.gpu_batch_size * 9 / 8, at.gpu_batch_size + 1, at.gpu_batch_size - 1,
                                      at.gpu_batch_size * 7 / 8}) {
        if (size < 1 || size > most || size == at.gpu_batch_size) continue;
        change([&](Point& p) { p.gpu_batch_size = size; });
      }
    }
    if (choices.num_gpu_batches == 0) {
      for (const std::int64_t batches : {at.num_gpu_batches + 1, at.num_gpu_batches - 1}) {
        if (batches < 1 || batches > most_requests()) continue;
        change([&](Point& p) {
          p.num_gpu_batches = batches;
          if (choices.gpu_batch_size == 0)
            p.gpu_batch_size = div_up(at.gpu_batch_size * at.num_gpu_batches, batches);
        });
      }
    }
    if (!choices.kv_cache) {
      for (const int step : {10, 3, -3, -10}) {
        const int gpu = at.kv_cache[Tier::kGpu] + step;
        const int disk = at.kv_cache[Tier::kDisk];
        if (gpu < 0 || gpu + disk > 100) continue;
        change([&](Point& p) { p.kv_cache = {{gpu, 100 - gpu - disk, disk}}; });
      }
      for (const int step : {-25, 25}) {
        const int disk = at.kv_cache[Tier::kDisk] + step;
        const int gpu = at.kv_cache[Tier::kGpu];
        if (disk < 0 || gpu + disk > 100 || problem_.budget_bytes[Tier::kDisk] == 0) continue;
        change([&](Point& p) { p.kv_cache = {{gpu, 100 - gpu - disk, disk}}; });
      }
    }
    if (!choices.cpu_attention) change([](Point& p) { p.cpu_attention = !p.cpu_attention; });
    if (choices.prefetch_depth == 0) {
      for (const int depth : kDepths) {
        if (depth != at.prefetch_depth) change([&](Point& p) { p.prefetch_depth = depth; });
      }
    }
    if (choices.max_tokens_per_gpu_batch == 0) {
      for (const std::int64_t tokens : {at.max_tokens * 2, at.max_tokens / 2}) {
        if (tokens < std::max(kLeastTokens, at.gpu_batch_size) || tokens > kMostTokens) continue;
        change([&](Point& p) { p.max_tokens = tokens; });
      }
    }
    if (!choices.activations) {
      change([](Point& p) {
        p.activations =
            p.activations[Tier::kGpu] == 100 ? PerTier<int>{{0, 100, 0}} : PerTier<int>{{100, 0, 0}};
      });
    }
    return found;
  }

  PlanResult result() {
    std::stable_sort(played_.begin(), played_.end(),
                     [&](const Played& a, const Played& b) { return cost(a) < cost(b); });
    PlanResult found;
    found.num_estimated = static_cast<std::int64_t>(estimated_.size());
    found.num_simulated = static_cast<std::int64_t>(played_.size());
    const auto kind = [](const Point& p) { return std::tuple(p.cpu_attention, p.kv_cache[Tier::kGpu] > 0); };
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

  const PlanProblem& problem_;
  const Rates rates_;
  const ModelProducts products_;
  const RequestMeans means_;
  std::vector<Estimated> estimated_;
  std::vector<Played> played_;
  using Key = decltype(Point{}.key());
  std::map<Key, std::size_t> index_;  // of played_
  std::int64_t steps_ = 0;
};

/// The smallest run, in the few ways in which it can be placed: what misses least says what to do.
PlanRefusal refuse(const PlanProblem& problem) {
  PlanRefusal best;
  std::int64_t least = std::numeric_limits<std::int64_t>::max();
  Placement placement;
  placement.mixing = problem.choices.mixing;
  placement.kv_format = problem.choices.kv_format;
  placement.gpu_batch_size = std::max<std::int64_t>(1, problem.choices.gpu_batch_size);
  placement.num_gpu_batches = std::max<std::int64_t>(1, problem.choices.num_gpu_batches);
  placement.max_tokens_per_gpu_batch =
      std::max(placement.gpu_batch_size,
               problem.choices.max_tokens_per_gpu_batch > 0
                   ? problem.choices.max_tokens_per_gpu_batch
                   : std::min(kLeastTokens, placement.gpu_batch_size * problem.workload.max_prompt_len));
  for (const PerTier<int>& weights : {PerTier<int>{{0, 0, 100}}, {{0, 100, 0}}, {{100, 0, 0}}}) {
    for (const PerTier<int>& kv : {PerTier<int>{{0, 100, 0}}, {{100, 0, 0}}, {{0, 0, 100}}}) {
      placement.percents.weights = problem.choices.weights.value_or(weights);
      placement.percents.kv_cache = problem.choices.kv_cache.value_or(kv);
      placement.percents.activations = problem.choices.activations.value_or(PerTier<int>{{100, 0, 0}});
      placement.cpu_attention = problem.choices.cpu_attention.value_or(kv[Tier::kGpu] == 0);
      const MemoryPlan memory = memory_of(problem, placement);
      std::int64_t missing = 0;
      std::string problem_text;
      std::string remedy;
      const auto lacks = [&](std::int64_t needed, std::int64_t budget, std::string_view what,
                             std::string_view flag) {
        if (needed <= budget) return;
        missing += needed - budget;
        problem_text +=
            fmt::format("{}{} memory: {} more is needed ({} of {})", problem_text.empty() ? "" : "; ", what,
                        format_bytes(needed - budget), format_bytes(needed), format_bytes(budget));
        remedy += fmt::format("{}{} to {}", remedy.empty() ? "raise " : " and ", flag, format_bytes(needed));
      };
      lacks(memory.total[Tier::kGpu], problem.budget_bytes[Tier::kGpu], "GPU", "--gpu-memory");
      lacks(memory.total[Tier::kCpu], problem.budget_bytes[Tier::kCpu], "CPU", "--cpu-memory");
      lacks(memory.total[Tier::kDisk], problem.budget_bytes[Tier::kDisk], "disk", "--disk-memory");
      if (missing == 0 && problem.host_bytes >= 0) {
        lacks(memory.total[Tier::kGpu] + memory.total[Tier::kCpu], problem.host_bytes, "host",
              "the sum of --gpu-memory and --cpu-memory");
      }
      if (missing >= least || missing == 0) continue;
      least = missing;
      best.problem = fmt::format("no placement fits: even {} needs more than there is; {}",
                                 placement.block_size() == 1
                                     ? std::string("one sequence at a time")
                                     : fmt::format("the stated block of {}", placement.block_size()),
                                 problem_text);
      const std::int64_t context = problem.workload.seat_tokens();
      best.remedy = fmt::format("{}, or shorten the requests ({} tokens now)", remedy, context);
    }
  }
  return best;
}

}  // namespace

std::optional<PlanResult> make_plan(const PlanProblem& problem, PlanRefusal* refusal) {
  SLUICE_CHECK(!problem.requests.empty(), Code::kInvalidArgument, "a plan needs requests",
               "give lengths, or an input");
  Search search(problem);
  std::optional<PlanResult> result = search.run();
  if (!result && refusal != nullptr) *refusal = refuse(problem);
  return result;
}

std::optional<PlanCandidate> improve_plan(const PlanProblem& problem, const Placement& start) {
  return Search(problem).improve(start);
}

std::optional<PlanCandidate> predict(const PlanProblem& problem, const Placement& placement) {
  PlanCandidate candidate{placement, memory_of(problem, placement), {}, 0};
  if (!fits(problem, candidate.memory)) return std::nullopt;
  const std::vector<RequestLength> requests = requests_for(problem, placement);
  candidate.num_requests = std::ssize(requests);
  candidate.simulation =
      simulate(make_run_shape(problem.spec, problem.sizes, placement, problem.workload, problem.traits),
               problem.hardware, requests, {.formats = problem.formats});
  return candidate;
}

}  // namespace sluice::policy
