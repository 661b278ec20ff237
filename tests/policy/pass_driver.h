// Plays the engine's part without an engine: composes and builds pass after pass over a queue of requests and
// advances the seats as if every row had been computed. Shared by the schedule tests.
#pragma once

#include <deque>
#include <vector>

#include "policy/build_pass.h"
#include "policy/check_schedule.h"
#include "policy/compose_pass.h"

namespace sluice::policy::testing {

struct DrivenRequest {
  std::int64_t prompt_len = 1;
  std::int64_t gen_len = 1;
  bool wants_prompt_logprobs = false;
};

class PassDriver {
 public:
  PassDriver(const RunShape& shape, std::vector<DrivenRequest> requests)
      : shape_(shape),
        queue_(requests.begin(), requests.end()),
        seats_(static_cast<std::size_t>(shape.placement.block_size())),
        left_(seats_.size()) {}

  bool done() const {
    if (!queue_.empty()) return false;
    for (const SeatState& seat : seats_) {
      if (seat.active) return false;
    }
    return true;
  }

  const Pass& compose() {
    std::vector<WaitingRequest> waiting;
    for (const DrivenRequest& r : queue_) {
      if (waiting.size() == kWaitingPerSeat * seats_.size()) break;
      waiting.push_back({r.prompt_len, r.wants_prompt_logprobs, r.gen_len > 0,
                         Workload::seat_tokens(r.prompt_len, r.gen_len)});
    }
    compose_pass(shape_, seats_, waiting, number_++, pass_);
    return pass_;
  }

  /// Takes over what the pass did.
  void advance() {
    for (const Admission& admission : pass_.admissions) {
      const DrivenRequest& r = queue_[static_cast<std::size_t>(admission.waiting)];
      const auto seat = static_cast<std::size_t>(admission.seat);
      seats_[seat] = {true, 0, r.prompt_len, r.wants_prompt_logprobs, r.gen_len > 0};
      left_[seat] = r.gen_len;
    }
    for (auto it = pass_.admissions.rbegin(); it != pass_.admissions.rend(); ++it) {
      queue_.erase(queue_.begin() + it->waiting);
    }
    for (const Segment& segment : pass_.segments) {
      const auto index = static_cast<std::size_t>(segment.seat);
      SeatState& seat = seats_[index];
      seat.kv_len += segment.num_tokens;
      if (seat.kv_len < seat.prompt_len) continue;
      if (--left_[index] <= 0) seat.active = false;
    }
  }

 private:
  const RunShape& shape_;
  std::deque<DrivenRequest> queue_;
  std::vector<SeatState> seats_;
  std::vector<std::int64_t> left_;
  std::int32_t number_ = 0;
  Pass pass_;
};

}  // namespace sluice::policy::testing
