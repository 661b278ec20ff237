#include "policy/compose_pass.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "policy/kv_traffic.h"

namespace sluice::policy {
namespace {

class Composer {
 public:
  Composer(const RunShape& shape, std::span<const SeatState> seats, std::int32_t number, Pass& pass)
      : shape_(shape), seats_(seats), pass_(pass) {
    pass_.number = number;
    pass_.segments.clear();
    pass_.admissions.clear();
    pass_.has_prefill = false;
    pass_.batches.assign(static_cast<std::size_t>(shape.placement.num_gpu_batches), {});
  }

  void add_decode_rows() {
    for (std::size_t seat = 0; seat < seats_.size(); ++seat) {
      const SeatState& state = seats_[seat];
      if (!state.active || state.kv_len < state.prompt_len) continue;
      Segment segment{.seat = static_cast<std::int32_t>(seat),
                      .num_tokens = 1,
                      .first_kv = state.kv_len,
                      .decode = true,
                      .num_wanted = 1};
      segment.on_cpu = shape_.attends_on_cpu(pages_of(segment.seat));
      SLUICE_ASSERT(fits(segment));
      add(segment);
    }
  }

  /// Sequences whose prompt was cut go on with as many rows as fit.
  void continue_prompts() {
    for (std::size_t seat = 0; seat < seats_.size(); ++seat) {
      const SeatState& state = seats_[seat];
      if (!state.active || state.kv_len >= state.prompt_len) continue;
      add_prompt_rows(static_cast<std::int32_t>(seat), state.kv_len, state.prompt_len,
                      state.wants_prompt_logprobs, state.samples, /*may_cut=*/true);
    }
  }

  /// Free seats, the longest first, take the first request for whose length they are made; where there is
  /// none, one of the next shorter kind. So a long request does not wait behind a short one in a long seat.
  /// Within a kind the order of the queue holds, and once its end is in sight the one with the most tokens to
  /// come is first, so that the last ones end together. A batch without room for its request takes no more in
  /// this pass.
  void admit(std::span<const WaitingRequest> waiting) {
    if (waiting.empty()) return;
    lengths_.clear();
    for (const SeatPages& seat : shape_.seats.seats) lengths_.push_back(seat.total());
    std::ranges::sort(lengths_);
    find_free_seats();
    is_admitted_.assign(waiting.size(), 0);
    first_left_ = 0;
    end_in_sight_ = waiting.size() < kWaitingPerSeat * seats_.size();
    most_new_tokens_ = 0;
    if (end_in_sight_) {
      for (const WaitingRequest& request : waiting)
        most_new_tokens_ = std::max(most_new_tokens_, request.seat_tokens - request.prompt_len);
    }
    std::size_t num_left = waiting.size();
    while (num_left > 0) {
      const std::int32_t seat = take_longest_free_seat();
      if (seat < 0) break;
      const std::int64_t i = request_for(pages_of(seat).total(), waiting);
      if (i < 0) continue;
      const WaitingRequest& request = waiting[static_cast<std::size_t>(i)];
      // Cut only what could never fit beside the other seats' decode rows.
      const bool may_cut = request.prompt_len > shape_.max_tokens - (shape_.placement.gpu_batch_size - 1);
      if (!add_prompt_rows(seat, 0, request.prompt_len, request.wants_prompt_logprobs, request.samples,
                           may_cut)) {
        free_seats_[batch_index(seat)].clear();
        continue;
      }
      is_admitted_[static_cast<std::size_t>(i)] = 1;
      --num_left;
      pass_.admissions.push_back({seat, static_cast<std::int32_t>(i)});
    }
    std::ranges::sort(pass_.admissions, {}, &Admission::waiting);
  }

  /// Orders segments by GPU batch and fills in what the builder and the executor need.
  void finish() {
    std::stable_sort(pass_.segments.begin(), pass_.segments.end(), [&](const Segment& a, const Segment& b) {
      return batch_index(a.seat) < batch_index(b.seat);
    });
    for (BatchPass& batch : pass_.batches) batch = {};
    for (std::size_t i = 0; i < pass_.segments.size(); ++i) {
      Segment& segment = pass_.segments[i];
      const SeatPages& seat = pages_of(segment.seat);
      SLUICE_ASSERT(segment_pages(segment).end <= seat.total());
      BatchPass& batch = pass_.batches[batch_index(segment.seat)];
      if (batch.num_segments++ == 0) batch.first_segment = static_cast<std::int32_t>(i);
      segment.first_row = batch.num_tokens;
      batch.num_tokens += segment.num_tokens;
      batch.num_wanted += segment.num_wanted;
      if (segment.on_cpu) {
        segment.cpu_row = batch.num_cpu_rows;
        batch.num_cpu_rows += segment.num_tokens;
      } else {
        ++batch.num_gpu_segments;
      }
      if (const std::int32_t pages = window_pages_of(seat, segment); pages > 0) {
        segment.window_page = batch.window_pages;
        batch.window_pages += pages;
      }
      if (const std::int32_t pages = stage_pages_of(seat, segment); pages > 0) {
        segment.stage_page = batch.stage_pages;
        batch.stage_pages += pages;
      }
      add_kv_traffic(shape_, seat, segment, batch);
    }
  }

 private:
  std::size_t batch_index(std::int32_t seat) const {
    return static_cast<std::size_t>(seat / shape_.placement.gpu_batch_size);
  }
  const SeatPages& pages_of(std::int32_t seat) const {
    return shape_.seats.seats[static_cast<std::size_t>(seat)];
  }

  bool fits(const Segment& segment) const {
    const BatchPass& batch = pass_.batches[batch_index(segment.seat)];
    const SeatPages& seat = pages_of(segment.seat);
    return batch.num_tokens + segment.num_tokens <= shape_.max_tokens &&
           batch.window_pages + window_pages_of(seat, segment) <= shape_.window_pages &&
           batch.stage_pages + stage_pages_of(seat, segment) <= shape_.kv_stage_pages &&
           batch.num_wanted + segment.num_wanted <= shape_.max_result_rows;
  }

  void add(const Segment& segment) {
    BatchPass& batch = pass_.batches[batch_index(segment.seat)];
    const SeatPages& seat = pages_of(segment.seat);
    batch.num_tokens += segment.num_tokens;
    batch.window_pages += window_pages_of(seat, segment);
    batch.stage_pages += stage_pages_of(seat, segment);
    batch.num_wanted += segment.num_wanted;
    pass_.segments.push_back(segment);
  }

  bool add_prompt_rows(std::int32_t seat, std::int64_t kv_len, std::int64_t prompt_len, bool wants_logprobs,
                       bool samples, bool may_cut) {
    const BatchPass& batch = pass_.batches[batch_index(seat)];
    const std::int64_t room = shape_.max_tokens - batch.num_tokens;
    const std::int64_t rows = std::min(prompt_len - kv_len, room);
    if (rows <= 0 || (rows < prompt_len - kv_len && !may_cut)) return false;
    const bool last = kv_len + rows == prompt_len;
    Segment segment{.seat = seat, .num_tokens = static_cast<std::int32_t>(rows), .first_kv = kv_len};
    // Row r predicts token r + 1: all rows but the prompt's last have their target in the prompt.
    if (wants_logprobs) {
      segment.num_wanted = static_cast<std::int32_t>(last && !samples ? rows - 1 : rows);
    } else if (last && samples) {
      segment.first_wanted = static_cast<std::int32_t>(rows - 1);
      segment.num_wanted = 1;
    }
    if (!fits(segment)) return false;
    add(segment);
    pass_.has_prefill = true;
    return true;
  }

  /// Of each GPU batch, the next one to take last: the longest, of equally long ones the first.
  void find_free_seats() {
    free_seats_.assign(pass_.batches.size(), {});
    for (std::size_t seat = seats_.size(); seat-- > 0;) {
      const auto number = static_cast<std::int32_t>(seat);
      if (!seats_[seat].active) free_seats_[batch_index(number)].push_back(number);
    }
    for (std::vector<std::int32_t>& seats : free_seats_)
      std::ranges::stable_sort(seats, {}, [&](std::int32_t seat) { return pages_of(seat).total(); });
  }

  /// Of equally long ones that in the GPU batch with the most room, so that prompts spread evenly. -1: none.
  std::int32_t take_longest_free_seat() {
    std::int32_t best = -1;
    std::int64_t best_room = -1;
    for (const std::vector<std::int32_t>& seats : free_seats_) {
      if (seats.empty()) continue;
      const std::int32_t seat = seats.back();
      const std::int64_t room = shape_.max_tokens - pass_.batches[batch_index(seat)].num_tokens;
      const std::int32_t longer = best < 0 ? 1 : pages_of(seat).total() - pages_of(best).total();
      if (longer > 0 || (longer == 0 && room > best_room)) {
        best = seat;
        best_room = room;
      }
    }
    if (best >= 0) free_seats_[batch_index(best)].pop_back();
    return best;
  }

  /// The first, or with the end in sight the longest to run, of the waiting requests that need the longest
  /// seats among those that fit `pages`; -1: none fits.
  std::int64_t request_for(std::int32_t pages, std::span<const WaitingRequest> waiting) {
    while (first_left_ < waiting.size() && is_admitted_[first_left_] != 0) ++first_left_;
    std::int64_t best = -1;
    std::int32_t best_length = 0;
    std::int64_t best_new_tokens = 0;
    for (std::size_t i = first_left_; i < waiting.size(); ++i) {
      if (best_length >= pages && best_new_tokens >= most_new_tokens_) break;  // none can be before it
      if (is_admitted_[i] != 0) continue;
      const std::int64_t needed = kv_pages(std::max(waiting[i].prompt_len, waiting[i].seat_tokens));
      if (needed > pages) continue;
      const std::int32_t length =
          *std::ranges::lower_bound(lengths_, needed);  // the shortest seat that takes it
      const std::int64_t new_tokens = end_in_sight_ ? waiting[i].seat_tokens - waiting[i].prompt_len : 0;
      if (std::pair(length, new_tokens) > std::pair(best_length, best_new_tokens)) {
        best = static_cast<std::int64_t>(i);
        best_length = length;
        best_new_tokens = new_tokens;
      }
    }
    return best;
  }

  const RunShape& shape_;
  std::span<const SeatState> seats_;
  Pass& pass_;
  std::vector<std::int32_t> lengths_;                  // of all seats, ascending
  std::vector<std::vector<std::int32_t>> free_seats_;  // by GPU batch
  std::vector<char> is_admitted_;
  std::size_t first_left_ = 0;  // of the waiting requests: all before it are admitted
  bool end_in_sight_ = false;
  std::int64_t most_new_tokens_ = 0;  // of a waiting request; 0 unless the end is in sight
};

}  // namespace

void compose_pass(const RunShape& shape, std::span<const SeatState> seats,
                  std::span<const WaitingRequest> waiting, std::int32_t number, Pass& pass) {
  Composer composer(shape, seats, number, pass);
  if (shape.placement.mixing) composer.add_decode_rows();
  composer.continue_prompts();
  composer.admit(waiting);
  if (!shape.placement.mixing && pass.segments.empty()) composer.add_decode_rows();
  composer.finish();
}

}  // namespace sluice::policy
