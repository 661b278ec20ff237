#include "offload/check_request.h"

#include <algorithm>

namespace sluice::offload {
namespace {

constexpr const char* kPlanIt = "plan the run with this request in its workload";

void check_lengths(const Request& request, const RequestLimits& limits) {
  const auto prompt_len = static_cast<std::int64_t>(request.prompt_ids.size());
  const std::int64_t context = limits.spec->max_positions;
  const policy::Workload& work = *limits.workload;
  SLUICE_CHECK(prompt_len > 0, Code::kInvalidArgument, "the prompt is empty", "give at least one token");
  SLUICE_CHECK(prompt_len <= context, Code::kInvalidArgument,
               fmt::format("the prompt has {} tokens, the context of model '{}' is {}", prompt_len,
                           limits.spec->name, context),
               "shorten the prompt");
  const std::int64_t planned = std::min(work.max_prompt_len, work.max_total_len);
  SLUICE_CHECK(
      prompt_len <= planned, Code::kInvalidArgument,
      fmt::format("the prompt has {} tokens, the run was planned for at most {}", prompt_len, planned),
      kPlanIt);
  SLUICE_CHECK(request.max_new_tokens >= 0, Code::kInvalidArgument,
               fmt::format("max_new_tokens is {}", request.max_new_tokens), "give 0 or more");
  // A request that reaches beyond the context is cut there; beyond the plan it is refused.
  SLUICE_CHECK(
      work.max_total_len == context || request.max_new_tokens <= work.max_total_len - prompt_len,
      Code::kInvalidArgument,
      fmt::format("a prompt of {} tokens with {} new ones is more than the {} that the run was planned for",
                  prompt_len, request.max_new_tokens, work.max_total_len),
      kPlanIt);
}

void check_ids(const Request& request, const RequestLimits& limits) {
  for (std::size_t i = 0; i < request.prompt_ids.size(); ++i) {
    const std::int32_t id = request.prompt_ids[i];
    SLUICE_CHECK(id >= 0 && id < limits.spec->vocab_size, Code::kInvalidArgument,
                 fmt::format("token id {} is outside the vocabulary of {}", id, limits.spec->vocab_size),
                 "use the model's own tokenizer");
    // Rows beyond the tokenizer's vocabulary pad the matrix: they can be read but have no probability.
    SLUICE_CHECK(
        i == 0 || !request.want_prompt_logprobs || id < limits.valid_vocab, Code::kInvalidArgument,
        fmt::format("token id {} has no log-prob: the tokenizer has {} tokens", id, limits.valid_vocab),
        "leave it out, or score without --tokenizer");
  }
}

}  // namespace

void check_request(const Request& request, const RequestLimits& limits) {
  const policy::Workload& work = *limits.workload;
  check_lengths(request, limits);
  check_ids(request, limits);
  SLUICE_CHECK(request.stop.empty() || limits.has_tokenizer, Code::kInvalidArgument,
               "stop strings need a tokenizer", "use stop_ids, or give --tokenizer");
  const std::int64_t most_top = std::min<std::int64_t>(work.max_top_logprobs, limits.valid_vocab);
  SLUICE_CHECK(request.num_top_logprobs >= 0 && request.num_top_logprobs <= most_top, Code::kInvalidArgument,
               fmt::format("{} most likely tokens are wanted, the run was planned for {}",
                           request.num_top_logprobs, most_top),
               kPlanIt);
  SLUICE_CHECK(!request.want_prompt_logprobs || work.max_logprob_rows > 0, Code::kInvalidArgument,
               "prompt log-probs are wanted, the run was planned without", kPlanIt);
  validate(request.sampling);
}

}  // namespace sluice::offload
