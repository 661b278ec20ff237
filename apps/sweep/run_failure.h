// Why a run of a sweep failed, as an error. Pure, thread-safe.
#pragma once

#include <string>

#include "apps/sweep/child_process.h"

namespace sluice::apps {

/// Returns if the run ended well. Else throws Error as it ended: {kOutOfMemory, kInvalidArgument, ...} by its
/// exit status, {kCancelled} if it was stopped on request, {kInternal} for a crash or a timeout. `message` is
/// the error that the run itself reported; "" if it reported none.
void throw_if_failed(const ChildOutcome& outcome, const ChildOptions& options, const std::string& message);

/// "15 (SIGTERM)".
std::string signal_text(int number);

}  // namespace sluice::apps
