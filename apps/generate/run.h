// The run itself: requests into the engine, results out in input order. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <vector>

#include "apps/generate/generator.h"
#include "apps/generate/requests.h"
#include "apps/output/result_output.h"
#include "policy/work_floor.h"

namespace sluice::apps {

/// What a result looks like in the output: JSONL; text for people; nothing, when only the figures count.
enum class ResultFormat { kJsonl, kText, kNone };

struct RunCounts {
  std::int64_t total = 0;
  std::int64_t done = 0;         ///< results and refusals, earlier runs included
  std::int64_t done_before = 0;  ///< by the run that is resumed
  std::int64_t refused = 0;      ///< requests with a problem
  /// Those of this run in the order of submission, as they ran; what is not done has generated nothing.
  std::vector<policy::SequenceWork> work = {};
};

/// Runs every request that has no problem and is not done yet, and writes all results to `output`.
/// A request that the engine refuses throws, or with kKeepGoing becomes an error line. If `stop` is asked for
/// or the run fails, finished results are written before Error{kCancelled}, or the failure, is thrown.
/// `counts` is kept up to date; `on_progress` is called on this thread at the start, with each token and each
/// result.
void run_requests(Generator& generator, std::vector<PendingRequest>& requests, ResultOutput& output,
                  ResultFormat format, OnBadRequest on_bad, std::stop_token stop, RunCounts& counts,
                  const std::function<void()>& on_progress);

}  // namespace sluice::apps
