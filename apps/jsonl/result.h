// Results as JSONL. Pure functions, thread-safe. Every line is valid UTF-8 and ends in '\n'.
//
//   {"id", "prompt_ids", "token_ids", "text", "finish_reason": "eos"|"stop"|"length",
//    "logprobs"?: [{"token_id","logprob","top":[{"token_id","logprob"}, ...]}],
//    "prompt_logprobs"?: [null, number, ...]}
//   {"id", "error": {"message", "code"}}                       a request that could not run
//
// Numbers are the shortest text that reads back as the same float; a log-prob that is not finite is null.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "core/error.h"
#include "offload/engine.h"

namespace sluice::apps {

/// What a result line repeats of its request.
struct RequestEcho {
  std::string id;  ///< JSON text
  std::span<const std::int32_t> prompt_ids;
  bool want_logprobs = false;
  bool want_prompt_logprobs = false;
};

std::string result_line(const RequestEcho& request, const offload::Result& result);
std::string error_line(const std::string& id, const Status& failure);

/// `text` as a JSON string, quotes included; bytes that are not UTF-8 become U+FFFD.
std::string json_string(std::string_view text);

}  // namespace sluice::apps
