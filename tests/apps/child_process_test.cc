// Programs that end in every way, and what a sweep says of each.
#include "apps/sweep/child_process.h"

#include <array>
#include <atomic>
#include <charconv>
#include <chrono>
#include <csignal>
#include <fcntl.h>
#include <optional>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "apps/interrupt.h"
#include "apps/sweep/run_failure.h"
#include "core/error.h"
#include "offload/io/block_file.h"
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

/// What /proc/PID/status says behind `field`; empty once the process has ended.
std::string status_field(pid_t pid, const std::string& field) {
  const std::string text = "\n" + read_text("/proc/" + std::to_string(pid) + "/status");
  const std::size_t at = text.find("\n" + field + ":\t");
  if (at == std::string::npos) return "";
  const std::size_t begin = at + field.size() + 3;
  return text.substr(begin, text.find('\n', begin) - begin);
}

bool is_pending(pid_t pid, int number) {
  const std::string mask = status_field(pid, "ShdPnd");
  return !mask.empty() && (std::stoull(mask, nullptr, 16) >> (number - 1) & 1) != 0;
}

/// The one child of this process; 0 if there is none.
pid_t only_child() {
  const std::string self = std::to_string(getpid());
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    pid_t pid = 0;
    std::from_chars(name.data(), name.data() + name.size(), pid);
    if (pid != 0 && status_field(pid, "PPid") == self) return pid;
  }
  return 0;
}

TEST(ChildProcess, ARunThatAStopEndsIsStoppedWhicheverIsSeenFirst) {
  const TempDir dir;
  for (const bool stops : {true, false}) {
    SCOPED_TRACE(stops);
    std::stop_source stop;
    // The run ends itself at once, the request comes a moment later.
    std::jthread later([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      if (stops) stop.request_stop();
    });
    const ChildOutcome outcome = run_shell("kill -INT $$", {.stderr_file = dir / "err"}, stop.get_token());
    EXPECT_EQ(outcome.end, stops ? End::kStopped : End::kSignalled);
    EXPECT_EQ(outcome.number, SIGINT);
  }
}

TEST(ChildProcess, AStopBeforeTheProgramRunsIsNotLost) {
  if (status_field(getpid(), "ShdPnd").empty()) GTEST_SKIP() << "/proc does not tell pending signals here";
  const TempDir dir;
  const InterruptScope sweep;  // the child starts with this process's handlers
  // Opening it holds the child up on its way to the program, until it has a reader.
  const std::string held = dir / "err";
  ASSERT_EQ(mkfifo(held.c_str(), S_IRUSR | S_IWUSR), 0);
  for (const int number : {SIGINT, SIGTERM}) {
    SCOPED_TRACE(number);
    const bool by_request = number == SIGINT;
    bool was_held = false;
    std::jthread release([&](const std::stop_token& ends) {
      offload::UniqueFd reader;
      for (pid_t child = 0; !ends.stop_requested();
           std::this_thread::sleep_for(std::chrono::milliseconds(1))) {
        if (child == 0) child = only_child();
        if (was_held || child == 0 || !is_pending(child, number)) continue;
        was_held = true;
        reader = offload::UniqueFd(open(held.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
      }
    });
    std::stop_source stop;
    if (by_request) stop.request_stop();
    const ChildOutcome outcome =
        run_shell(kSlow, {.stderr_file = held, .timeout_sec = by_request ? 0 : 0.05, .grace_sec = 10},
                  stop.get_token());
    release.request_stop();
    release.join();
    EXPECT_TRUE(was_held);
    EXPECT_EQ(outcome.end, by_request ? End::kStopped : End::kTimedOut);
    EXPECT_EQ(outcome.number, number);
    EXPECT_FALSE(outcome.was_killed);
    EXPECT_LT(outcome.sec, 10);
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
