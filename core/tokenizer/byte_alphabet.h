// GPT-2's byte alphabet: vocab.json and merges.txt write each byte as one printable character (a space is
// "Ġ"), so that the files are text (Radford et al. 2019; facts from the format itself). Pure, thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sluice {

/// The code point that stands for `byte`: itself where it is printable in Latin-1 (33..126, 161..172,
/// 174..255), else 256 + its rank among the bytes that are not.
std::uint32_t alphabet_code_point(std::uint8_t byte);

/// The bytes that `symbol` spells; empty if it holds a character outside the alphabet or invalid UTF-8.
std::optional<std::string> alphabet_to_bytes(std::string_view symbol);

}  // namespace sluice
