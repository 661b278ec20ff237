// One running request: its tokens so far, its text, and when it is done. One thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/tokenizer/tokenizer.h"
#include "offload/engine.h"

namespace sluice::offload {

class Sequence {
 public:
  /// `tokenizer` may be null and outlives the sequence.
  Sequence(std::int64_t index, Request request, const Tokenizer* tokenizer, std::int32_t eos_id,
           std::int64_t max_total_len);

  /// Reserves the storage of the whole result: at admission, so that a long queue costs only its prompts.
  void reserve();

  const Request& request() const { return request_; }
  std::int64_t index() const { return result_.index; }
  std::int64_t prompt_len() const { return static_cast<std::int64_t>(request_.prompt_ids.size()); }
  std::int64_t num_generated() const { return static_cast<std::int64_t>(result_.token_ids.size()); }
  /// Tokens it may generate: max_new_tokens, cut at the end of the context.
  std::int64_t max_new_tokens() const { return max_new_tokens_; }
  bool samples() const { return max_new_tokens_ > 0; }
  /// Token at KV index `i`: of the prompt, or generated.
  std::int32_t token_at(std::int64_t i) const;

  void add_prompt_logprob(float logprob) { result_.prompt_logprobs.push_back(logprob); }
  /// Takes a generated token; true if the request is done with it.
  bool add_token(std::int32_t token_id, float logprob, std::span<const ScoredToken> top);
  /// The finished result; the sequence is spent.
  Result take_result();
  Result take_cancelled();

 private:
  std::optional<FinishReason> finish_of(std::int32_t token_id);
  bool hits_stop_string();

  Request request_;
  const Tokenizer* tokenizer_;
  std::int32_t eos_id_;
  std::int64_t max_new_tokens_ = 0;
  std::optional<IncrementalDecoder> decoder_;
  std::size_t longest_stop_ = 0;
  std::size_t text_searched_ = 0;  // text before this holds no stop string
  Result result_;
};

}  // namespace sluice::offload
