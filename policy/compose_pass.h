// Decides which rows go into the next pass: decode rows of every running sequence, and whole prompts of
// waiting requests up to the token budget of each GPU batch. Pure: the engine and the simulator call the same
// function.
#pragma once

#include <cstdint>
#include <span>

#include "policy/pass.h"
#include "policy/run_shape.h"

namespace sluice::policy {

/// A seat as the composer sees it.
struct SeatState {
  bool active = false;
  std::int64_t kv_len = 0;  ///< tokens whose K and V are stored
  std::int64_t prompt_len = 0;
  bool wants_prompt_logprobs = false;
  bool samples = true;  ///< false: scoring only, the last prompt row needs no token
};

struct WaitingRequest {
  std::int64_t prompt_len = 0;
  bool wants_prompt_logprobs = false;
  bool samples = true;
  std::int64_t seat_tokens = 0;  ///< KV positions it will need in all; at least the prompt's are taken
};

/// The engine offers this many waiting requests for each seat, from the front of its queue: enough to find
/// those that a free seat is made for, and to begin with the long ones well before the queue ends.
inline constexpr std::size_t kWaitingPerSeat = 8;

/// Fills `pass` (whose storage is reused). Sequences in the middle of their prompt come first, then waiting
/// requests take free seats, in order among those that need seats of one length; where fewer wait than
/// kWaitingPerSeat allows, the end of the queue is in sight, and those with the most tokens to come are
/// first (a caller that goes on submitting while so few wait may keep a short one waiting). A request waits
/// if no GPU batch has a seat for it and room for its whole prompt, but a prompt longer than a batch can ever
/// take is cut. Admissions are in the order of the waiting list. With `placement.mixing` off, prefill rows
/// and decode rows do not meet.
void compose_pass(const RunShape& shape, std::span<const SeatState> seats,
                  std::span<const WaitingRequest> waiting, std::int32_t number, Pass& pass);

}  // namespace sluice::policy
