#include "apps/sweep/run_failure.h"

#include <algorithm>
#include <array>
#include <csignal>
#include <cstring>

#include <fmt/format.h>

#include "core/error.h"

namespace sluice::apps {
namespace {

Code code_of_exit(int status) {
  constexpr std::array kCodes = {Code::kInvalidArgument, Code::kNotFound, Code::kCorrupt,
                                 Code::kOutOfMemory,     Code::kIo,       Code::kDevice,
                                 Code::kUnsupported,     Code::kCancelled};
  const auto* const found =
      std::find_if(kCodes.begin(), kCodes.end(), [&](Code code) { return exit_status(code) == status; });
  return found == kCodes.end() ? Code::kInternal : *found;
}

const char* remedy_of_signal(int number) {
  switch (number) {
    case SIGKILL:
      return "if the machine ran out of memory, lower --cpu-memory";
    case SIGHUP:
    case SIGINT:
    case SIGTERM:
      return "somebody else ended it; try the point again with --resume";
    default:
      return "please report this with the point's flags";
  }
}

}  // namespace

std::string signal_text(int number) {
  const char* const name = sigabbrev_np(number);
  return name == nullptr ? std::to_string(number) : fmt::format("{} (SIG{})", number, name);
}

void throw_if_failed(const ChildOutcome& outcome, const ChildOptions& options, const std::string& message) {
  using End = ChildOutcome::End;
  if (outcome.end == End::kExited && outcome.number == 0) return;
  const std::string said = message.empty() ? "" : fmt::format("; it said: {}", message);
  const std::string killed =
      outcome.was_killed
          ? fmt::format(", did not end within {:g} s of being asked to, and was killed", options.grace_sec)
          : "";
  switch (outcome.end) {
    case End::kStopped:
      throw Error(Code::kCancelled, "stopped on request");
    case End::kTimedOut:
      throw Error(Code::kInternal,
                  fmt::format("the run took more than the {:g} s of timeout_sec{}{}", options.timeout_sec,
                              killed, said),
                  "raise timeout_sec, or take a smaller point");
    case End::kSignalled:
      throw Error(Code::kInternal,
                  fmt::format("the run was ended by signal {} after {:.1f} s{}", signal_text(outcome.number),
                              outcome.sec, said),
                  remedy_of_signal(outcome.number));
    case End::kExited:
      break;
  }
  SLUICE_CHECK(outcome.number != kNotStarted || !message.empty(), Code::kInternal,
               fmt::format("the run did not start (status {})", kNotStarted),
               "look whether files and processes are left to this user (ulimit -n, ulimit -u)");
  Status(code_of_exit(outcome.number),
         message.empty() ? fmt::format("the run ended with status {}", outcome.number) : message)
      .throw_if_failed();
}

}  // namespace sluice::apps
