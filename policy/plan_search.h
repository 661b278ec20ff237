// The planner's search: estimates the lattice, simulates the best of it, and climbs from the best few.
// PLANNER.md beside this file tells how. One search per problem; not thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "policy/estimate.h"
#include "policy/plan_lattice.h"
#include "policy/planner.h"
#include "policy/rates.h"
#include "policy/step_costs.h"

namespace sluice::policy::detail {

/// The requests that a placement is judged by.
std::vector<RequestLength> requests_for(const PlanProblem& problem, const Placement& placement);

class PlanSearch {
 public:
  /// `problem` outlives the search.
  explicit PlanSearch(const PlanProblem& problem);

  /// Over the whole lattice; nothing if no placement fits.
  std::optional<PlanResult> run();
  /// From one placement; nothing if nothing like it fits.
  std::optional<PlanCandidate> improve(const Placement& start);

 private:
  struct Estimated {
    PlanPoint point;
    double sec = 0;  ///< of a request
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
  double estimate_sec(const Placement& placement) const;

  /// The point as the engine would run it: two GPU batches where the CPU attends (overlapping), and the
  /// stated workspace, or one that holds a row of every sequence.
  PlanPoint settled(PlanPoint point) const;
  /// The placement of a settled point, weights filled in; nothing if it does not fit.
  std::optional<Placement> place(const PlanPoint& point) const;
  RunShape shape_of(const Placement& placement) const;

  // Simulation.
  bool may_simulate() const { return played_.empty() || steps_ < problem_.step_budget; }
  /// Plays the point unless it was; null if it does not fit or the budget is spent.
  const Played* play(const PlanPoint& asked);
  /// Smaller is better.
  double cost(const Played& played) const;
  double latency_sec(const Simulation& run) const;
  void simulate_best_estimates();
  void climb();

  void prefer_simple();
  PlanResult result();

  // Fixed after construction.
  const PlanProblem& problem_;
  const PlanLattice lattice_;
  const Rates rates_;
  const ModelProducts products_;
  const RequestMeans means_;
  // Of the search so far.
  std::vector<Estimated> estimated_;
  std::vector<Played> played_;
  using Key = decltype(PlanPoint{}.key());
  std::map<Key, std::optional<std::size_t>> index_;  // into played_; nothing for what does not fit
  std::int64_t steps_ = 0;
};

}  // namespace sluice::policy::detail
