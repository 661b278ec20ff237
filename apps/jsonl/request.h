// One line of a JSONL input as a request. Pure functions, thread-safe.
//
//   {"id"?, "prompt": "..." | "prompt_ids": [...], "max_new_tokens"=32, "do_sample"=false, "temperature"=1,
//    "top_k"=0, "top_p"=1, "seed"?, "stop": "..."|[...], "stop_ids"?, "ignore_eos"=false, "logprobs": k?,
//    "prompt_logprobs"=false}
//
// A null value counts as an absent field. A field that is absent has the value of the command line's flag.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/error.h"
#include "offload/engine.h"

namespace sluice::apps {

/// Where a line stands: for messages, and for the id of a request that brings none.
struct LinePosition {
  std::string file = "input";
  std::int64_t line = 1;     ///< from 1, blank lines counted
  std::int64_t request = 0;  ///< from 0, blank lines not counted
};

/// A line as it was written, before tokenizer and model have seen it.
struct RequestLine {
  std::string id;  ///< JSON text of a string or whole number; the request's number if absent
  std::optional<std::string> prompt;  ///< empty if the line brought prompt_ids, which are then in `request`
  offload::Request request;
  bool has_seed = false;  ///< the line chose a seed itself
};

/// Upper bound of "logprobs".
inline constexpr std::int32_t kMaxTopLogprobs = 1000;

/// The JSON text of the id of `line` if it is an object with a valid one, else of the request's number.
std::string id_of_line(std::string_view line, const LinePosition& at);

/// Throws Error{kInvalidArgument} "file:line: field: problem; fix" for malformed JSON (invalid UTF-8
/// included), an unknown or repeated field (naming the nearest known one), a wrong type or range, and for a
/// line with no prompt or with two. `defaults` supplies what the line leaves out; its prompt_ids are not
/// used.
RequestLine parse_request_line(std::string_view line, const LinePosition& at,
                               const offload::Request& defaults);

}  // namespace sluice::apps
