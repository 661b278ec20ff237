#include "apps/interrupt.h"

#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <unistd.h>

#include "apps/blocked_interrupts.h"
#include "core/errno_text.h"
#include "core/error.h"
#include "core/log.h"

namespace sluice::apps {
namespace {

// What a signal handler may touch: two descriptors and a flag.
int pipe_read = -1;
int pipe_write = -1;
volatile std::sig_atomic_t signals_seen = 0;
struct sigaction previous_int;
struct sigaction previous_term;

constexpr char kSignalled = 's';
constexpr char kScopeEnds = 'e';

extern "C" void sluice_on_interrupt(int) {
  const int saved_errno = errno;
  if (signals_seen != 0) _exit(exit_status(Code::kCancelled));
  signals_seen = 1;
  [[maybe_unused]] const ssize_t n = write(pipe_write, &kSignalled, 1);
  errno = saved_errno;
}

void watch(std::stop_source source) {
  char seen = 0;
  for (;;) {
    const ssize_t n = read(pipe_read, &seen, 1);
    if (n < 0 && errno == EINTR) continue;
    if (n != 1 || seen == kScopeEnds) return;
    log_warn("stopping: finished results are kept; press Ctrl-C again to exit at once");
    source.request_stop();
  }
}

void close_pipe() {
  close(pipe_read);
  close(pipe_write);
  pipe_read = pipe_write = -1;
}

}  // namespace

InterruptScope::InterruptScope(const kernels::ThreadMaker& make_thread) {
  SLUICE_ASSERT(pipe_read < 0);
  int ends[2];
  SLUICE_CHECK(pipe2(ends, O_CLOEXEC) == 0, Code::kIo, fmt::format("pipe: {}", errno_text(errno)),
               "raise the limit on open files (ulimit -n)");
  pipe_read = ends[0];
  pipe_write = ends[1];
  signals_seen = 0;

  try {
    const BlockedInterrupts inherited;
    watcher_ = kernels::ThreadStarter("the watch for Ctrl-C", 1, make_thread).start([source = source_] {
      watch(source);
    });
  } catch (...) {
    close_pipe();
    throw;
  }

  struct sigaction action = {};
  action.sa_handler = sluice_on_interrupt;
  action.sa_flags = SA_RESTART;  // I/O under way is finished or cancelled by the engine, not broken off
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, &previous_int);
  sigaction(SIGTERM, &action, &previous_term);
}

InterruptScope::~InterruptScope() {
  sigaction(SIGINT, &previous_int, nullptr);
  sigaction(SIGTERM, &previous_term, nullptr);
  ssize_t n = 0;
  do {
    n = write(pipe_write, &kScopeEnds, 1);
  } while (n < 0 && errno == EINTR);
  watcher_.join();
  close_pipe();
}

void InterruptScope::throw_if_requested() const {
  if (source_.stop_requested()) throw Error(Code::kCancelled, "stopped on request");
}

}  // namespace sluice::apps
