// A program that runs beside this one, in a process of its own: what it takes is given back when it ends, and
// a crash is a status. One thread at a time, which must live as long as the child.
#pragma once

#include <filesystem>
#include <stop_token>
#include <string>
#include <vector>

namespace sluice::apps {

struct ChildOutcome {
  enum class End : std::uint8_t { kExited, kSignalled, kTimedOut, kStopped };
  End end = End::kExited;   ///< kStopped also if SIGINT or SIGTERM came from elsewhere during a stop request
  int number = 0;           ///< exit status, or signal
  bool was_killed = false;  ///< it had not ended within grace_sec of the signal that asked it to
  double sec = 0;
};

struct ChildOptions {
  std::filesystem::path stderr_file;
  double timeout_sec = 0;  ///< 0: none; then SIGTERM, and SIGKILL if that does not end it
  double grace_sec = 20;   ///< between the two; after a stop request, between SIGINT and SIGKILL
};

/// Exit status of a child whose program could not be executed.
inline constexpr int kNotStarted = 127;

/// Runs `program` with these arguments to its end; standard input and output are /dev/null. A stop request
/// passes SIGINT on and waits, as a timeout does; a program that has not begun by then does not begin. The
/// child is killed if this process dies. Throws Error{kIo} if it cannot start.
ChildOutcome run_child(const std::filesystem::path& program, const std::vector<std::string>& arguments,
                       const ChildOptions& options, const std::stop_token& stop);

/// The file of the running program.
std::filesystem::path this_program();

}  // namespace sluice::apps
