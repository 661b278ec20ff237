// The few UTF-8 operations that tokenizers need: strict decoding (RFC 3629: no surrogates, no overlong forms)
// that says how far an invalid sequence reaches. Pure functions, thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace sluice {

enum class Utf8Kind : std::uint8_t {
  kValid,
  kInvalid,     ///< no character starts here
  kIncomplete,  ///< the text ends inside what may become a character
};

struct Utf8Step {
  Utf8Kind kind = Utf8Kind::kInvalid;
  std::size_t length = 0;        ///< bytes; of kInvalid and kIncomplete, the longest prefix of a character
  std::uint32_t code_point = 0;  ///< of kValid
};

/// What stands at the start of `text`, which must not be empty.
Utf8Step next_utf8(std::string_view text);

/// The length of the longest prefix of `text` that is valid UTF-8.
std::size_t valid_utf8_prefix(std::string_view text);

void append_utf8(std::string& out, std::uint32_t code_point);

/// U+FFFD, which stands for each invalid sequence (the longest prefix of a character, or one byte).
inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

}  // namespace sluice
