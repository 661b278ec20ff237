// The planner's search: estimates the lattice, simulates the best of it, and climbs from the best few.
// PLANNER.md beside this file tells how. One search per problem; not thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "policy/estimate.h"
#include "policy/fill_memory.h"
#include "policy/plan_lattice.h"
#include "policy/planner.h"
#include "policy/rates.h"
#include "policy/step_costs.h"

namespace sluice::policy::detail {

/// The requests that a placement is judged by.
std::vector<RequestLength> requests_for(const PlanProblem& problem, const Placement& placement);

/// `asked`, or 0 if nothing is attended on the CPU.
int usable_threads(const Placement& placement, int asked);

class PlanSearch {
 public:
  /// `problem` outlives the search.
  explicit PlanSearch(const PlanProblem& problem);

  /// Over the whole lattice; nothing if no placement fits.
  std::optional<PlanResult> run();
  /// From one placement; nothing if nothing like it fits.
  std::optional<PlanCandidate> improve(const PlanCandidate& start);

 private:
  struct Estimated {
    PlanPoint point;
    double sec = 0;        ///< of a request
    double block_sec = 0;  ///< its latency
  };
  struct Played {
    PlanPoint point;
    PlanCandidate candidate;
  };

  // Estimates.
  void enumerate();
  /// Adds the point with each of `sizes` that fits, and with the largest that does.
  void add_sizes(PlanPoint point, const std::vector<std::int64_t>& sizes);
  /// False if the point does not fit.
  bool add(PlanPoint point);
  bool add_workspaces(PlanPoint point);
  Estimated estimate_of(const PlanPoint& point, const Placement& placement);

  /// The point as the engine would run it: two GPU batches where the CPU attends (overlapping), and the
  /// stated workspace, or one that holds a row of every sequence.
  PlanPoint settled(PlanPoint point) const;
  /// The placement of a settled point, weights filled in; nothing if it does not fit.
  std::optional<Placement> place(const PlanPoint& point);
  RunShape shape_of(const Placement& placement) const;

  // Simulation.
  bool may_simulate() const { return played_.empty() || steps_ < step_limit_; }
  /// Plays the point unless it was; null if it does not fit or the budget is spent.
  const Played* play(const PlanPoint& asked);
  /// Smaller is better.
  double cost(const Played& played) const;
  /// What a latency beyond the bound adds to a cost.
  double penalty(double latency_sec) const;
  const Rates& rates_with(int attention_threads);
  void simulate_best_estimates();
  void simulate_threads();
  void simulate_workspaces();
  void climb();
  /// From played_[start]: one change at a time as long as it helps.
  void climb_from(std::size_t start);
  void climb_from_best();
  /// What two changes at once make of played_[at], what promises most first.
  std::vector<PlanPoint> pairs_of_changes(std::size_t at);
  std::int64_t estimate_steps(const PlanPoint& point) const;
  /// The index in played_ of the first of `points` that costs less than played_[at]; nothing if none does.
  std::optional<std::size_t> first_better(std::size_t at, const std::vector<PlanPoint>& points);
  /// Those of `points` that fit and were not played, what promises most from what is known of played_[at]
  /// first. Where few more can be simulated, those that promise little are left out.
  std::vector<PlanPoint> by_promise(std::size_t at, const std::vector<PlanPoint>& points);
  /// Positions in played_, best first; of those that `kind` takes for the same one, at most `most`.
  template <class Kind>
  std::vector<std::size_t> best_of_kinds(std::size_t most, Kind kind) const;

  void prefer_simple();
  PlanResult result();

  // Fixed after construction.
  const PlanProblem& problem_;
  const PlanLattice lattice_;
  const Rates rates_;  // with the most threads that attend
  const ModelProducts products_;
  const RequestMeans means_;
  // Of the search so far.
  WeightFill weights_;
  std::map<int, Rates> rates_with_;  // fewer threads that attend
  std::vector<Estimated> estimated_;
  std::vector<Played> played_;
  using Key = decltype(PlanPoint{}.key());
  std::map<Key, std::optional<std::size_t>> index_;  // into played_; nothing for what does not fit
  std::int64_t steps_ = 0, step_limit_ = 0;
};

}  // namespace sluice::policy::detail
