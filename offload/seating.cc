#include "offload/seating.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "offload/check_request.h"
#include "policy/compose_pass.h"

namespace sluice::offload {

using policy::Pass;
using policy::Segment;

Seating::Seating(const policy::RunShape& shape, const Tokenizer* tokenizer, std::int64_t valid_vocab)
    : shape_(shape),
      tokenizer_(tokenizer),
      valid_vocab_(valid_vocab),
      seats_(static_cast<std::size_t>(shape.placement.block_size())),
      sequences_(seats_.size()) {}

std::int64_t Seating::submit(Request request) {
  check_request(request, {&shape_.spec, &shape_.workload, valid_vocab_, tokenizer_ != nullptr});
  MutexLock lock(mutex_);
  const std::int64_t index = next_index_++;
  queue_.emplace_back(index, std::move(request), tokenizer_, shape_.spec.eos_id,
                      shape_.workload.max_total_len);
  return index;
}

void Seating::cancel(std::int64_t index) {
  MutexLock lock(mutex_);
  cancelled_.insert(index);
}

void Seating::apply_cancels(const std::function<void(Result)>& on_result) {
  std::vector<Result> results;
  {
    MutexLock lock(mutex_);
    if (cancelled_.empty()) return;
    const std::set<std::int64_t> gone = std::exchange(cancelled_, {});
    const auto is_cancelled = [&](const Sequence& sequence) { return gone.contains(sequence.index()); };
    for (Sequence& queued : queue_) {
      if (is_cancelled(queued)) results.push_back(queued.take_cancelled());
    }
    std::erase_if(queue_, is_cancelled);
    for (std::size_t seat = 0; seat < seats_.size(); ++seat) {
      if (!seats_[seat].active || !is_cancelled(*sequences_[seat])) continue;
      results.push_back(sequences_[seat]->take_cancelled());
      seats_[seat].active = false;
      sequences_[seat].reset();
    }
  }
  for (Result& result : results) on_result(std::move(result));
}

bool Seating::compose(std::int32_t number, Pass& pass) {
  MutexLock lock(mutex_);
  waiting_.clear();
  for (std::size_t i = 0; i < std::min(queue_.size(), policy::kWaitingPerSeat * seats_.size()); ++i) {
    const Sequence& sequence = queue_[i];
    waiting_.push_back({sequence.prompt_len(), sequence.request().want_prompt_logprobs, sequence.samples(),
                        policy::Workload::seat_tokens(sequence.prompt_len(), sequence.max_new_tokens())});
  }
  policy::compose_pass(shape_, seats_, waiting_, number, pass);
  if (pass.empty()) {
    SLUICE_ASSERT(queue_.empty());  // an empty pass while requests wait would never end
    return false;
  }
  for (const policy::Admission& admission : pass.admissions) {
    const auto seat = static_cast<std::size_t>(admission.seat);
    sequences_[seat].emplace(std::move(queue_[static_cast<std::size_t>(admission.waiting)]));
    sequences_[seat]->reserve();
    const Sequence& sequence = *sequences_[seat];
    seats_[seat] = {true, 0, sequence.prompt_len(), sequence.request().want_prompt_logprobs,
                    sequence.samples()};
  }
  for (auto it = pass.admissions.rbegin(); it != pass.admissions.rend(); ++it) {
    queue_.erase(queue_.begin() + it->waiting);
  }
  return true;
}

template <class Visit>
void Seating::for_wanted_rows(const Pass& pass, std::int64_t gpu_batch, Visit visit) const {
  const policy::BatchPass& batch = pass.batches[static_cast<std::size_t>(gpu_batch)];
  std::size_t row = 0;
  for (std::int32_t i = 0; i < batch.num_segments; ++i) {
    const Segment& segment = pass.segments[static_cast<std::size_t>(batch.first_segment + i)];
    for (std::int32_t r = 0; r < segment.num_wanted; ++r) visit(segment, segment.first_wanted + r, row++);
  }
}

void Seating::write_inputs(const Pass& pass, const ModelRunner& runner) const {
  for (std::int64_t b = 0; b < shape_.placement.num_gpu_batches; ++b) {
    const policy::BatchPass& batch = pass.batches[static_cast<std::size_t>(b)];
    const BatchInputs inputs = runner.inputs(pass.number, b);
    for (std::int32_t i = 0; i < batch.num_segments; ++i) {
      const Segment& segment = pass.segments[static_cast<std::size_t>(batch.first_segment + i)];
      const Sequence& sequence = *sequences_[static_cast<std::size_t>(segment.seat)];
      for (std::int32_t t = 0; t < segment.num_tokens; ++t) {
        const auto row = static_cast<std::size_t>(segment.first_row + t);
        inputs.ids[row] = sequence.token_at(segment.first_kv + t);
        inputs.position_rows[row] =
            static_cast<std::int32_t>(segment.first_kv + t + shape_.spec.position_offset);
      }
    }
    for_wanted_rows(pass, b, [&](const Segment& segment, std::int32_t r, std::size_t row) {
      const Sequence& sequence = *sequences_[static_cast<std::size_t>(segment.seat)];
      const Request& request = sequence.request();
      const std::int64_t next = segment.first_kv + r + 1;
      kernels::SampleRow wanted;
      wanted.choose = next >= sequence.prompt_len();
      if (wanted.choose) {
        const std::uint64_t key = request.draw_key.value_or(static_cast<std::uint64_t>(sequence.index()));
        wanted.params = request.sampling;
        wanted.draw =
            uniform_draw(request.sampling.seed, key, static_cast<std::uint64_t>(sequence.num_generated()));
        wanted.num_top = request.want_logprobs ? request.num_top_logprobs : 0;
      } else {
        wanted.target_id = sequence.token_at(next);
      }
      inputs.wanted_rows[row] = segment.first_row + r;
      inputs.sample_rows[row] = wanted;
    });
  }
}

std::int64_t Seating::read_results(const Pass& pass, const ModelRunner& runner, RunStats& stats,
                                   const std::function<void(Result)>& on_result) {
  std::int64_t generated = 0;
  for (const Segment& segment : pass.segments)
    seats_[static_cast<std::size_t>(segment.seat)].kv_len += segment.num_tokens;
  for (std::int64_t b = 0; b < shape_.placement.num_gpu_batches; ++b) {
    const BatchResults results = runner.results(b);
    for_wanted_rows(pass, b, [&](const Segment& segment, std::int32_t r, std::size_t row) {
      Sequence& sequence = *sequences_[static_cast<std::size_t>(segment.seat)];
      const kernels::SampledRow& sampled = results.rows[row];
      SLUICE_CHECK(
          sampled.token_id != kernels::kNanToken, Code::kInternal,
          fmt::format("the logits of request {} at position {} are not numbers", sequence.index(),
                      segment.first_kv + r),
          "check the weights (sluice inspect --verify); activations beyond fp16's 65504 also give this");
      if (segment.first_kv + r + 1 < sequence.prompt_len()) {
        sequence.add_prompt_logprob(sampled.target_logprob);
        return;
      }
      ++generated;
      const auto num_top = static_cast<std::size_t>(
          sequence.request().want_logprobs ? sequence.request().num_top_logprobs : 0);
      const std::span<const ScoredToken> top{
          results.top.data + static_cast<std::int64_t>(row) * results.top.stride, num_top};
      if (sequence.add_token(sampled.token_id, sampled.token_logprob, top)) finished_.push_back(segment.seat);
    });
  }
  for (const Segment& segment : pass.segments) {
    const auto seat = static_cast<std::size_t>(segment.seat);
    if (!sequences_[seat]->samples() && seats_[seat].kv_len == seats_[seat].prompt_len)
      finished_.push_back(segment.seat);
  }
  for (const std::int32_t seat : finished_) {
    Sequence& sequence = *sequences_[static_cast<std::size_t>(seat)];
    stats.requests_done += 1;
    stats.prompt_tokens += sequence.prompt_len();
    Result result = sequence.take_result();
    sequences_[static_cast<std::size_t>(seat)].reset();
    seats_[static_cast<std::size_t>(seat)].active = false;
    on_result(std::move(result));
  }
  finished_.clear();
  return generated;
}

}  // namespace sluice::offload
