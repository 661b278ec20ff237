// What the readers of a tokenizer's JSON files share. Pure, thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace sluice {

/// Ids are below this, so that a damaged file cannot ask for gigabytes; the largest vocabularies in use
/// have about 2^18 tokens.
inline constexpr std::int32_t kMaxTokenId = 1 << 22;

/// Throws Error{kCorrupt} naming `path`, line and column.
nlohmann::json parse_tokenizer_json(std::string_view text, const std::string& path);

}  // namespace sluice
