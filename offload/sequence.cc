#include "offload/sequence.h"

#include <algorithm>

namespace sluice::offload {

std::string_view finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kEos:
      return "eos";
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
  }
  return "?";
}

Sequence::Sequence(std::int64_t index, Request request, const Tokenizer* tokenizer, std::int32_t eos_id,
                   std::int64_t max_total_len)
    : request_(std::move(request)), tokenizer_(tokenizer), eos_id_(eos_id) {
  max_new_tokens_ = std::clamp<std::int64_t>(max_total_len - prompt_len(), 0, request_.max_new_tokens);
  result_.index = index;
  if (tokenizer_ != nullptr) decoder_.emplace(*tokenizer_);
  for (const std::string& stop : request_.stop) longest_stop_ = std::max(longest_stop_, stop.size());
}

void Sequence::reserve() {
  result_.token_ids.reserve(static_cast<std::size_t>(max_new_tokens_));
  if (request_.want_logprobs) result_.logprobs.reserve(static_cast<std::size_t>(max_new_tokens_));
  if (request_.want_prompt_logprobs) result_.prompt_logprobs.reserve(request_.prompt_ids.size());
}

std::int32_t Sequence::token_at(std::int64_t i) const {
  return i < prompt_len() ? request_.prompt_ids[static_cast<std::size_t>(i)]
                          : result_.token_ids[static_cast<std::size_t>(i - prompt_len())];
}

bool Sequence::add_token(std::int32_t token_id, float logprob, std::span<const ScoredToken> top) {
  result_.token_ids.push_back(token_id);
  if (request_.want_logprobs) {
    GeneratedLogprob& entry = result_.logprobs.emplace_back();
    entry.token_id = token_id;
    entry.logprob = logprob;
    for (const ScoredToken& token : top) entry.top.push_back({token.token_id, token.logit});
  }
  if (request_.on_token) request_.on_token(token_id);
  const std::optional<FinishReason> finish = finish_of(token_id);
  if (finish) result_.finish_reason = *finish;
  return finish.has_value();
}

std::optional<FinishReason> Sequence::finish_of(std::int32_t token_id) {
  const bool is_eos = token_id == eos_id_ && !request_.ignore_eos;
  if (is_eos) return FinishReason::kEos;
  if (std::find(request_.stop_ids.begin(), request_.stop_ids.end(), token_id) != request_.stop_ids.end()) {
    return FinishReason::kStop;
  }
  if (decoder_) {
    result_.text += decoder_->push(token_id);
    if (hits_stop_string()) return FinishReason::kStop;
  }
  if (num_generated() >= max_new_tokens_) return FinishReason::kLength;
  return std::nullopt;
}

/// Cuts the text before the first stop string in it.
bool Sequence::hits_stop_string() {
  std::size_t first = std::string::npos;
  for (const std::string& stop : request_.stop) {
    if (!stop.empty()) first = std::min(first, result_.text.find(stop, text_searched_));
  }
  if (first != std::string::npos) {
    result_.text.resize(first);
    decoder_.reset();
    return true;
  }
  // A stop string may begin in what is there and end in what comes.
  if (longest_stop_ > 0) {
    text_searched_ = result_.text.size() - std::min(result_.text.size(), longest_stop_ - 1);
  }
  return false;
}

Result Sequence::take_result() {
  if (decoder_) {
    result_.text += decoder_->finish();
    hits_stop_string();
  }
  return std::move(result_);
}

Result Sequence::take_cancelled() {
  result_.finish_reason = FinishReason::kCancelled;
  return take_result();
}

}  // namespace sluice::offload
