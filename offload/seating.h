// Requests and the seats they run in: from the queue to the rows of a pass, and from its results back to the
// requests. `submit` and `cancel` are thread-safe; the rest belongs to the thread that runs.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <set>
#include <vector>

#include "core/mutex.h"
#include "core/tokenizer/tokenizer.h"
#include "offload/engine.h"
#include "offload/executor/model_runner.h"
#include "offload/sequence.h"
#include "policy/compose_pass.h"
#include "policy/pass.h"
#include "policy/run_shape.h"

namespace sluice::offload {

class Seating {
 public:
  /// Both outlive the seating; `tokenizer` may be null. `valid_vocab` is the number of ids in requests.
  Seating(const policy::RunShape& shape, const Tokenizer* tokenizer, std::int64_t valid_vocab);

  /// As Engine's.
  std::int64_t submit(Request request);
  void cancel(std::int64_t index);

  /// Delivers the results of cancelled requests and frees their places.
  void apply_cancels(const std::function<void(Result)>& on_result);
  /// Chooses the rows of pass `number` and seats the admitted requests. False if there is nothing to do.
  bool compose(std::int32_t number, policy::Pass& pass);
  /// Writes the ids, positions and wanted rows of the pass where its transfers find them.
  void write_inputs(const policy::Pass& pass, const ModelRunner& runner) const;
  /// Advances every seat of the pass and delivers finished requests, which it counts in `stats`. Returns the
  /// tokens generated.
  std::int64_t read_results(const policy::Pass& pass, const ModelRunner& runner, RunStats& stats,
                            const std::function<void(Result)>& on_result);

 private:
  template <class Visit>
  void for_wanted_rows(const policy::Pass& pass, std::int64_t gpu_batch, Visit visit) const;

  // Fixed after construction.
  const policy::RunShape& shape_;
  const Tokenizer* tokenizer_;
  const std::int64_t valid_vocab_;

  // Run thread only.
  std::vector<policy::SeatState> seats_;
  std::vector<std::optional<Sequence>> sequences_;
  std::vector<policy::WaitingRequest> waiting_;
  std::vector<std::int32_t> finished_;

  // Any thread.
  Mutex mutex_;
  std::deque<Sequence> queue_ SLUICE_GUARDED_BY(mutex_);
  std::int64_t next_index_ SLUICE_GUARDED_BY(mutex_) = 0;
  std::set<std::int64_t> cancelled_ SLUICE_GUARDED_BY(mutex_);
};

}  // namespace sluice::offload
