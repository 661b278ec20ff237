#include "policy/compose_pass.h"

#include <algorithm>

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

  /// Requests take free seats in their order; the first that must wait ends the round.
  void admit(std::span<const WaitingRequest> waiting) {
    taken_.assign(seats_.size(), 0);
    for (std::size_t i = 0; i < waiting.size(); ++i) {
      const WaitingRequest& request = waiting[i];
      // Cut only what could never fit beside the other seats' decode rows.
      const bool may_cut = request.prompt_len > shape_.max_tokens - (shape_.placement.gpu_batch_size - 1);
      const std::int32_t seat = roomiest_free_seat();
      if (seat < 0) return;
      if (!add_prompt_rows(seat, 0, request.prompt_len, request.wants_prompt_logprobs, request.samples,
                           may_cut))
        return;
      taken_[static_cast<std::size_t>(seat)] = 1;
      pass_.admissions.push_back({seat, static_cast<std::int32_t>(i)});
    }
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

  /// A free seat in the GPU batch with the most room, so that prompts spread evenly.
  std::int32_t roomiest_free_seat() const {
    std::int32_t best = -1;
    std::int64_t best_room = -1;
    for (std::size_t seat = 0; seat < seats_.size(); ++seat) {
      if (seats_[seat].active || taken_[seat] != 0) continue;
      const auto number = static_cast<std::int32_t>(seat);
      const std::int64_t room = shape_.max_tokens - pass_.batches[batch_index(number)].num_tokens;
      if (room > best_room) {
        best = number;
        best_room = room;
      }
    }
    return best;
  }

  const RunShape& shape_;
  std::span<const SeatState> seats_;
  Pass& pass_;
  std::vector<char> taken_;
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
