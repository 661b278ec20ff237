// Any line of a JSONL input is a request or an Error, and its error line is valid JSON with the same id.
#include <string_view>

#include <nlohmann/json.hpp>

#include "apps/jsonl/request.h"
#include "apps/jsonl/result.h"
#include "tests/fuzz/fuzz.h"

namespace sluice::apps {
namespace {

/// Checks what must hold whatever was parsed; a broken promise is a crash, which is what a fuzzer reports.
void require(bool holds) {
  if (!holds) __builtin_trap();
}

void check_line(std::string_view line) {
  const LinePosition at{.file = "fuzz", .line = 1, .request = 5};
  std::string id = id_of_line(line, at);
  try {
    const RequestLine parsed = parse_request_line(line, at, {});
    require(parsed.id == id);
    require(parsed.prompt.has_value() == parsed.request.prompt_ids.empty());
    require(parsed.request.max_new_tokens >= 0 && parsed.request.sampling.top_p > 0);
    offload::Result result;
    result.text = parsed.prompt.value_or("");
    const std::string text = result_line({.id = parsed.id, .prompt_ids = parsed.request.prompt_ids}, result);
    require(nlohmann::json::parse(text).at("text") == result.text);
    fuzz::note_outcome("accepted");
  } catch (const Error& e) {
    fuzz::note_outcome(e.what());
    const std::string error = error_line(id, {e.code(), e.what()});
    require(nlohmann::json::parse(error).contains("error"));
  }
}

}  // namespace
}  // namespace sluice::apps

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  sluice::apps::check_line({reinterpret_cast<const char*>(data), size});
  return 0;
}
