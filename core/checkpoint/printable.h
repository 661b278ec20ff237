// Names that a file claims, made fit for a message. Pure function, thread-safe.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace sluice {

/// `text` with quotes, backslashes and everything but printable ASCII as \xNN, so that it can stand between
/// quotes in a log line and in JSON; cut after `max_chars`.
std::string printable(std::string_view text, std::size_t max_chars = 100);

}  // namespace sluice
