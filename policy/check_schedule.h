// An independent judge of schedules. It derives from the meaning of each step what memory the step touches
// and what that memory must hold, and never looks at how the builder chose its waits. For tests and
// debugging. Pure.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "policy/pass.h"
#include "policy/run_shape.h"
#include "policy/step.h"

namespace sluice::policy {

/// Start and end of a step as executed, in seconds.
struct StepTime {
  double start_sec = 0, end_sec = 0;
};

class ScheduleChecker {
 public:
  explicit ScheduleChecker(const RunShape& shape);
  ~ScheduleChecker();

  /// Feeds the schedules of one run in order: the prologue with a null pass, then every pass. Without `times`
  /// two steps are ordered if the waits imply it; with `times` (recorded by the executor, parallel to
  /// schedule.steps) if the one ended before the other started.
  void add(const Schedule& schedule, const Pass* pass, const std::vector<StepTime>* times = nullptr);

  /// One sentence for each violation so far: a conflict without order, a slot that does not hold what its
  /// reader needs, an index beyond the plan, a wait for a step that does not come first, and without prefetch
  /// weights that come before the GPU has come to their unit.
  const std::vector<std::string>& violations() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::policy
