// A schedule as text, one line a step: for golden tests, bug reports and people. Pure.
#pragma once

#include <string>

#include "policy/pass.h"
#include "policy/step.h"

namespace sluice::policy {

/// "gpu 12: pre unit 1 batch 0 weights 1 act 0 set 0 | h2d 3" for each step: lane and position on it, what,
/// which slots, and after the bar the waits. `SCHEDULE.md` explains the words.
std::string format_schedule(const Schedule& schedule);

/// "seat 0 decode kv 64 +1 on cpu" for each segment, grouped by GPU batch.
std::string format_pass(const Pass& pass);

}  // namespace sluice::policy
