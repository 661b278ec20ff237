#include "policy/play_queue.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"

namespace sluice::policy {

QueuePlayer::QueuePlayer(const RunShape& shape, std::span<const RequestLength> requests)
    : shape_(shape),
      requests_(requests),
      waiting_index_(requests.size()),
      seats_(static_cast<std::size_t>(shape.placement.block_size())),
      left_(seats_.size()),
      began_sec_(seats_.size()) {
  std::iota(waiting_index_.rbegin(), waiting_index_.rend(), 0);  // the next one last: taken from the end
}

bool QueuePlayer::compose(Pass& pass) {
  waiting_.clear();
  const std::size_t seen = std::min(waiting_index_.size(), kWaitingPerSeat * seats_.size());
  for (std::size_t i = 0; i < seen; ++i) {
    const RequestLength& request =
        requests_[static_cast<std::size_t>(waiting_index_[waiting_index_.size() - 1 - i])];
    waiting_.push_back({.prompt_len = request.prompt_len,
                        .samples = request.gen_len > 0,
                        .seat_tokens = Workload::seat_tokens(request.prompt_len, request.gen_len)});
  }
  compose_pass(shape_, seats_, waiting_, number_++, pass);
  SLUICE_ASSERT(!pass.empty() || waiting_.empty());  // an empty pass while requests wait would never end
  return !pass.empty();
}

std::int64_t QueuePlayer::advance(const Pass& pass, double began_sec, double ended_sec) {
  // Admissions are in the order of the waiting list, whose first is the last of waiting_index_.
  const std::size_t end = waiting_index_.size();
  for (const Admission& admission : pass.admissions) {
    const std::size_t at = end - 1 - static_cast<std::size_t>(admission.waiting);
    const RequestLength& request = requests_[static_cast<std::size_t>(waiting_index_[at])];
    const auto seat = static_cast<std::size_t>(admission.seat);
    seats_[seat] = {.active = true, .prompt_len = request.prompt_len, .samples = request.gen_len > 0};
    left_[seat] = request.gen_len;
    began_sec_[seat] = began_sec;
    waiting_index_[at] = -1;
  }
  if (!pass.admissions.empty()) std::erase(waiting_index_, -1);
  std::int64_t generated = 0;
  for (const Segment& segment : pass.segments) {
    const auto index = static_cast<std::size_t>(segment.seat);
    SeatState& seat = seats_[index];
    seat.kv_len += segment.num_tokens;
    if (seat.kv_len < seat.prompt_len) continue;
    if (left_[index] > 0) ++generated;
    if (--left_[index] > 0) continue;
    seat.active = false;
    longest_request_sec_ = std::max(longest_request_sec_, ended_sec - began_sec_[index]);
  }
  return generated;
}

}  // namespace sluice::policy
