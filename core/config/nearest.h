// Which known name a misspelt one was meant to be. Pure functions, thread-safe.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace sluice {

/// Edits between two words: insertions, deletions, replacements and swaps of neighbours (Damerau 1964, in the
/// restricted form that edits no part twice).
std::size_t edit_distance(std::string_view a, std::string_view b);

/// The known name with the fewest edits, the first of equals; empty if none is within a third of the word's
/// length, and two edits at least.
std::string_view nearest_name(std::string_view word, std::span<const std::string_view> known);

/// "did you mean 'x'", or "known: a, b, c" where nothing is near.
std::string suggest_name(std::string_view word, std::span<const std::string_view> known);

}  // namespace sluice
