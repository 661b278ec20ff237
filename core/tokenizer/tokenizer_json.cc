#include "core/tokenizer/tokenizer_json.h"

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace sluice {

nlohmann::json parse_tokenizer_json(std::string_view text, const std::string& path) {
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::parse_error& e) {
    throw Error(Code::kCorrupt, fmt::format("{}: {}", path, e.what()),
                "fetch the model's tokenizer files again");
  }
}

}  // namespace sluice
