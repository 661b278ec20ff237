// Ctrl-C and SIGTERM as a stop request. One scope at a time in a process; its token may be used by any
// thread.
#pragma once

#include <stop_token>
#include <thread>

#include "kernels/device/cpu/thread_starter.h"

namespace sluice::apps {

/// While it lives, the first SIGINT or SIGTERM asks token() to stop, so that finished results are written and
/// files of the run removed; a second one ends the process at once with the exit status of Code::kCancelled.
class InterruptScope {
 public:
  /// An empty `make_thread` asks the system for its one thread. Throws Error{kIo} if no pipe can be made, and
  /// {kOutOfMemory} if the thread does not start; signals are then as they were.
  explicit InterruptScope(const kernels::ThreadMaker& make_thread = {});
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

  std::stop_token token() const { return source_.get_token(); }
  /// Throws Error{kCancelled} if a stop was asked for.
  void throw_if_requested() const;

 private:
  std::stop_source source_;
  std::jthread watcher_;  // request_stop() takes locks and runs callbacks: not in a signal handler
};

}  // namespace sluice::apps
