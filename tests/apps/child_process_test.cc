// Programs that end in every way, and what a sweep says of each.
#include "apps/sweep/child_process.h"

#include <array>
#include <csignal>
#include <optional>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "apps/sweep/run_failure.h"
#include "core/error.h"
#include "tests/apps/temp_dir.h"

namespace sluice::apps {
namespace {

using End = ChildOutcome::End;
using ::testing::HasSubstr;

ChildOutcome run_shell(const std::string& script, const ChildOptions& options,
                       const std::stop_token& stop = {}) {
  return run_child("/bin/sh", {"-c", script}, options, stop);
}

struct EndCase {
  std::string name, script;
  double timeout_sec = 0;
  End end = End::kExited;
  int number = 0;
  bool was_killed = false;
};

/// Children that it starts ignore what asks them to end.
class DeafChildren {
 public:
  DeafChildren() {
    for (std::size_t i = 0; i < kSignals.size(); ++i) previous_[i] = std::signal(kSignals[i], SIG_IGN);
  }
  ~DeafChildren() {
    for (std::size_t i = 0; i < kSignals.size(); ++i) std::signal(kSignals[i], previous_[i]);
  }
  DeafChildren(const DeafChildren&) = delete;
  DeafChildren& operator=(const DeafChildren&) = delete;

 private:
  static constexpr std::array kSignals = {SIGINT, SIGTERM};
  std::array<sighandler_t, 2> previous_;
};

constexpr const char* kSlow = "exec sleep 30";

TEST(ChildProcess, EveryEndIsToldApart) {
  const TempDir dir;
  const EndCase cases[] = {
      {"well", "exit 0"},
      {"status", "exit 3", 0, End::kExited, 3},
      {"crash", "kill -SEGV $$", 0, End::kSignalled, SIGSEGV},
      {"killed by the system", "kill -KILL $$", 0, End::kSignalled, SIGKILL},
      {"too slow", kSlow, 0.2, End::kTimedOut, SIGTERM},
      {"too slow, and deaf", kSlow, 0.2, End::kTimedOut, SIGKILL, true},
  };
  for (const EndCase& c : cases) {
    SCOPED_TRACE(c.name);
    std::optional<DeafChildren> deaf;
    if (c.was_killed) deaf.emplace();
    const ChildOutcome outcome =
        run_shell(c.script, {.stderr_file = dir / "err", .timeout_sec = c.timeout_sec, .grace_sec = 0.5});
    EXPECT_EQ(outcome.end, c.end);
    EXPECT_EQ(outcome.number, c.number);
    EXPECT_EQ(outcome.was_killed, c.was_killed);
    EXPECT_GE(outcome.sec, c.timeout_sec + (c.was_killed ? 0.5 : 0));
    EXPECT_LT(outcome.sec, 20);
  }
}

TEST(ChildProcess, AStopRequestIsPassedOnAndADeafProgramIsKilled) {
  const TempDir dir;
  for (const bool is_deaf : {false, true}) {
    SCOPED_TRACE(is_deaf);
    std::optional<DeafChildren> deaf;
    if (is_deaf) deaf.emplace();
    std::stop_source stop;
    stop.request_stop();
    const ChildOutcome outcome =
        run_shell(kSlow, {.stderr_file = dir / "err", .grace_sec = 0.5}, stop.get_token());
    EXPECT_EQ(outcome.end, End::kStopped);
    EXPECT_EQ(outcome.number, is_deaf ? SIGKILL : SIGINT);
    EXPECT_EQ(outcome.was_killed, is_deaf);
    EXPECT_LT(outcome.sec, 20);
  }
}

TEST(ChildProcess, AProgramThatIsMissingDoesNotStart) {
  const TempDir dir;
  const ChildOutcome outcome = run_child(dir / "none", {}, {.stderr_file = dir / "err"}, {});
  EXPECT_EQ(outcome.end, End::kExited);
  EXPECT_EQ(outcome.number, kNotStarted);
}

struct FailureCase {
  ChildOutcome outcome;
  std::string message;
  Code code;
  std::vector<std::string> says;
};

TEST(RunFailure, SaysHowTheRunEndedAndWhatToDo) {
  const ChildOptions options{.stderr_file = {}, .timeout_sec = 2.5, .grace_sec = 20};
  const FailureCase cases[] = {
      {{End::kSignalled, SIGSEGV, false, 4.25},
       "",
       Code::kInternal,
       {"signal 11 (SIGSEGV) after 4.2 s", "please report this"}},
      {{End::kSignalled, SIGKILL, false, 60},
       "",
       Code::kInternal,
       {"signal 9 (SIGKILL) after 60.0 s", "lower --cpu-memory"}},
      {{End::kSignalled, SIGTERM, false, 1},
       "no room",
       Code::kInternal,
       {"signal 15 (SIGTERM)", "it said: no room", "--resume"}},
      {{End::kSignalled, 64, false, 1}, "", Code::kInternal, {"signal 64 after"}},
      {{End::kTimedOut, SIGTERM, false, 2.5},
       "",
       Code::kInternal,
       {"more than the 2.5 s of timeout_sec;", "raise timeout_sec"}},
      {{End::kTimedOut, SIGKILL, true, 22.5},
       "stopping",
       Code::kInternal,
       {"the 2.5 s of timeout_sec, did not end within 20 s of being asked to, and was killed; it said: "
        "stopping",
        "raise timeout_sec"}},
      {{End::kStopped, SIGKILL, true, 22.5}, "", Code::kCancelled, {"stopped on request"}},
      {{End::kExited, kNotStarted, false, 0},
       "",
       Code::kInternal,
       {"did not start (status 127)", "ulimit -u"}},
      {{End::kExited, exit_status(Code::kOutOfMemory), false, 1},
       "need 4 GiB; lower it",
       Code::kOutOfMemory,
       {"need 4 GiB; lower it"}},
      {{End::kExited, 99, false, 1}, "", Code::kInternal, {"ended with status 99"}},
  };
  for (const FailureCase& c : cases) {
    try {
      throw_if_failed(c.outcome, options, c.message);
      ADD_FAILURE() << "no error, but expected " << c.says.front();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), c.code) << e.what();
      for (const std::string& text : c.says) EXPECT_THAT(e.what(), HasSubstr(text));
    }
  }
  throw_if_failed({}, options, "a warning of a run that went well");
}

}  // namespace
}  // namespace sluice::apps
