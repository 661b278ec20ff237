#include "apps/sweep/child_process.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <fmt/format.h>

#include "apps/blocked_interrupts.h"
#include "core/errno_text.h"
#include "core/error.h"

namespace sluice::apps {
namespace {

using Clock = std::chrono::steady_clock;

/// From here to execv only calls that are safe after fork in a program with threads.
[[noreturn]] void become(char* const* argv, const char* stderr_file, pid_t parent,
                         const BlockedInterrupts& blocked) {
  // A group of its own, so that the terminal's Ctrl-C reaches it once, through us.
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(kNotStarted);
  const int null = open("/dev/null", O_RDWR);
  const int err = open(stderr_file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (null < 0 || err < 0) _exit(kNotStarted);
  dup2(null, STDIN_FILENO);
  dup2(null, STDOUT_FILENO);
  dup2(err, STDERR_FILENO);
  blocked.restore_in_forked();
  execv(argv[0], argv);
  _exit(kNotStarted);
}

/// The id of a new child that becomes argv[0]. Throws Error{kIo}. A stop that arrives before the program runs
/// would be taken by the handler that the child has from us, and be lost: it waits until the child has none.
pid_t fork_into(char* const* argv, const char* stderr_file) {
  const BlockedInterrupts blocked;
  const pid_t parent = getpid();
  const pid_t pid = fork();
  SLUICE_CHECK(pid >= 0, Code::kIo, fmt::format("no process for a run: {}", errno_text(errno)),
               "raise the limit on processes (ulimit -u)");
  if (pid == 0) become(argv, stderr_file, parent, blocked);
  return pid;
}

class Child {
 public:
  explicit Child(pid_t pid) : pid_(pid) {}

  /// Waits until the child ends or `until`; true if it ended.
  bool wait_until(Clock::time_point until, const std::stop_token* stop) {
    constexpr auto kPoll = std::chrono::milliseconds(10);
    for (;;) {
      const pid_t ended = waitpid(pid_, &status_, WNOHANG);
      if (ended == pid_) return true;
      SLUICE_CHECK(ended == 0 || errno == EINTR, Code::kIo,
                   fmt::format("waiting for a run: {}", errno_text(errno)), "run the sweep again");
      if (Clock::now() >= until || (stop != nullptr && stop->stop_requested())) return false;
      std::this_thread::sleep_for(kPoll);
    }
  }
  void signal(int number) const { kill(pid_, number); }
  int status() const { return status_; }

 private:
  const pid_t pid_;
  int status_ = 0;
};

/// Whether the signal that ended a child reached this process as well: whose end is seen first is chance.
bool stops_too(const std::stop_token& stop) {
  const auto until = Clock::now() + std::chrono::milliseconds(100);
  while (!stop.stop_requested() && Clock::now() < until)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return stop.stop_requested();
}

}  // namespace

ChildOutcome run_child(const std::filesystem::path& program, const std::vector<std::string>& arguments,
                       const ChildOptions& options, const std::stop_token& stop) {
  std::vector<std::string> words = {program.string()};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const auto start = Clock::now();
  const pid_t pid = fork_into(argv.data(), options.stderr_file.c_str());

  const auto after = [](double sec) {
    constexpr double kMostSec = 1e8;  // three years, which a clock's ticks can hold
    return std::chrono::duration_cast<Clock::duration>(
        std::chrono::duration<double>(std::min(sec, kMostSec)));
  };
  Child child(pid);
  ChildOutcome outcome;
  const auto limit = options.timeout_sec > 0 ? start + after(options.timeout_sec) : Clock::time_point::max();
  if (!child.wait_until(limit, &stop)) {
    const bool is_stop = stop.stop_requested();
    outcome.end = is_stop ? ChildOutcome::End::kStopped : ChildOutcome::End::kTimedOut;
    child.signal(is_stop ? SIGINT : SIGTERM);
    if (!child.wait_until(Clock::now() + after(options.grace_sec), nullptr)) {
      outcome.was_killed = true;
      child.signal(SIGKILL);
      child.wait_until(Clock::time_point::max(), nullptr);
    }
  } else if (WIFSIGNALED(child.status())) {
    // Ctrl-C reaches a child that has no group of its own yet; what ends all processes reaches every child.
    const int number = WTERMSIG(child.status());
    const bool is_stop = (number == SIGINT || number == SIGTERM) && stops_too(stop);
    outcome.end = is_stop ? ChildOutcome::End::kStopped : ChildOutcome::End::kSignalled;
  }
  outcome.number = WIFSIGNALED(child.status()) ? WTERMSIG(child.status()) : WEXITSTATUS(child.status());
  outcome.sec = std::chrono::duration<double>(Clock::now() - start).count();
  return outcome;
}

std::filesystem::path this_program() {
  // Not where the link points: the child follows it to this very file, even if another has taken its place.
  std::error_code error;
  std::filesystem::path link = "/proc/self/exe";
  SLUICE_CHECK(std::filesystem::exists(link, error), Code::kIo, "/proc/self/exe does not exist",
               "mount /proc");
  return link;
}

}  // namespace sluice::apps
