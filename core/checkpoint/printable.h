// Texts made fit for a message: names that a file claims, and failures told again. Pure functions,
// thread-safe.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "core/error.h"

namespace sluice {

/// `text` with quotes, backslashes and everything but printable ASCII as \xNN, so that it can stand between
/// quotes in a log line and in JSON; cut after `max_chars`.
std::string printable(std::string_view text, std::size_t max_chars = 100);

/// e.what() without the remedy at its end, for an Error that says more and keeps e.fix().
std::string what_without_fix(const Error& e);

}  // namespace sluice
