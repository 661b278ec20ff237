// Messages for people, on stderr. Levels: error, warn (says what was chosen instead), info, debug.
// Thread-safe. stdout is never written: it belongs to results.
#pragma once

#include <string_view>
#include <utility>

#include <fmt/format.h>

namespace sluice {

enum class LogLevel { kError, kWarn, kInfo, kDebug };

void set_log_level(LogLevel level);
bool log_enabled(LogLevel level);
void log_message(LogLevel level, std::string_view message);

template <class... Args>
void log_error(fmt::format_string<Args...> text, Args&&... args) {
  log_message(LogLevel::kError, fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void log_warn(fmt::format_string<Args...> text, Args&&... args) {
  if (log_enabled(LogLevel::kWarn))
    log_message(LogLevel::kWarn, fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void log_info(fmt::format_string<Args...> text, Args&&... args) {
  if (log_enabled(LogLevel::kInfo))
    log_message(LogLevel::kInfo, fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void log_debug(fmt::format_string<Args...> text, Args&&... args) {
  if (log_enabled(LogLevel::kDebug))
    log_message(LogLevel::kDebug, fmt::format(text, std::forward<Args>(args)...));
}

}  // namespace sluice
