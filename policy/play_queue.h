// The engine's queue of requests without an engine: composes pass after pass and advances the seats as if
// every row had been computed and no request ended early. Pure.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "policy/compose_pass.h"

namespace sluice::policy {

struct RequestLength {
  std::int64_t prompt_len = 1;
  std::int64_t gen_len = 1;  ///< 0 scores the prompt
};

class QueuePlayer {
 public:
  /// `shape` and `requests` outlive the player.
  QueuePlayer(const RunShape& shape, std::span<const RequestLength> requests);

  /// Fills the next pass; false if there is none.
  bool compose(Pass& pass);
  /// Takes over what `pass` did between the two times. Returns how many tokens it generated.
  std::int64_t advance(const Pass& pass, double began_sec = 0, double ended_sec = 0);
  /// The longest time of a request so far, from the begin of the pass that admitted it to the end of its
  /// last.
  double longest_request_sec() const { return longest_request_sec_; }

 private:
  const RunShape& shape_;
  std::span<const RequestLength> requests_;
  std::vector<std::int32_t> waiting_index_;  // requests not yet seated, in order
  std::vector<WaitingRequest> waiting_;
  std::vector<SeatState> seats_;
  std::vector<std::int64_t> left_;  // tokens to generate, by seat
  std::vector<double> began_sec_;   // by seat
  double longest_request_sec_ = 0;
  std::int32_t number_ = 0;
};

}  // namespace sluice::policy
