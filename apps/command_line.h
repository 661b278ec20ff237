// From argv to an exit status: the one place where options are parsed, commands are chosen and failures
// become a line on stderr. Not thread-safe: it is main().
#pragma once

namespace sluice::apps {

/// Runs `sluice` with these arguments and returns its exit status: 0, or exit_status(code) (1..127) after one
/// line "error: what; fix" on stderr. Never throws.
int run_command_line(int argc, const char* const* argv) noexcept;

}  // namespace sluice::apps
