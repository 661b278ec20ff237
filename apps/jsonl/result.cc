#include "apps/jsonl/result.h"

#include <cmath>
#include <iterator>

#include <nlohmann/json.hpp>

namespace sluice::apps {
namespace {

template <class... Args>
void append(std::string& to, fmt::format_string<Args...> text, Args&&... args) {
  fmt::format_to(std::back_inserter(to), text, std::forward<Args>(args)...);
}

void append_float(std::string& to, float value) {
  if (std::isfinite(value)) {
    append(to, "{}", value);
  } else {
    to += "null";
  }
}

/// "[a,b,...]" with `one(to, element)` for each element.
template <class Range, class One>
void append_list(std::string& to, const Range& range, const One& one) {
  to += '[';
  bool first = true;
  for (const auto& element : range) {
    if (!first) to += ',';
    first = false;
    one(to, element);
  }
  to += ']';
}

void append_ids(std::string& to, std::span<const std::int32_t> ids) {
  append_list(to, ids, [](std::string& out, std::int32_t id) { append(out, "{}", id); });
}

void append_scored(std::string& to, std::int32_t token_id, float logprob) {
  append(to, "{{\"token_id\":{},\"logprob\":", token_id);
  append_float(to, logprob);
}

void append_logprob(std::string& to, const offload::GeneratedLogprob& token) {
  append_scored(to, token.token_id, token.logprob);
  to += ",\"top\":";
  append_list(to, token.top, [](std::string& out, const offload::TokenLogprob& t) {
    append_scored(out, t.token_id, t.logprob);
    out += '}';
  });
  to += '}';
}

std::string_view finish_text(offload::FinishReason reason) {
  switch (reason) {
    case offload::FinishReason::kEos:
      return "eos";
    case offload::FinishReason::kStop:
      return "stop";
    case offload::FinishReason::kLength:
      return "length";
    case offload::FinishReason::kCancelled:
      return "cancelled";
  }
  return "?";
}

}  // namespace

std::string json_string(std::string_view text) {
  using nlohmann::json;
  return json(text).dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string result_line(const RequestEcho& request, const offload::Result& result) {
  std::string line = fmt::format("{{\"id\":{},\"prompt_ids\":", request.id);
  append_ids(line, request.prompt_ids);
  line += ",\"token_ids\":";
  append_ids(line, result.token_ids);
  append(line, ",\"text\":{},\"finish_reason\":\"{}\"", json_string(result.text),
         finish_text(result.finish_reason));
  if (request.want_logprobs) {
    line += ",\"logprobs\":";
    append_list(line, result.logprobs, append_logprob);
  }
  if (request.want_prompt_logprobs) {
    line += ",\"prompt_logprobs\":[null";  // nothing predicts the first token
    for (float logprob : result.prompt_logprobs) {
      line += ',';
      append_float(line, logprob);
    }
    line += ']';
  }
  line += "}\n";
  return line;
}

std::string error_line(const std::string& id, const Status& failure) {
  return fmt::format("{{\"id\":{},\"error\":{{\"message\":{},\"code\":\"{}\"}}}}\n", id,
                     json_string(failure.message()), code_name(failure.code()));
}

}  // namespace sluice::apps
