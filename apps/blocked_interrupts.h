// SIGINT and SIGTERM kept away for a moment: from a thread and the threads that it starts meanwhile, or from
// the process that it forks. One object belongs to one thread.
#pragma once

#include <csignal>

namespace sluice::apps {

class BlockedInterrupts {
 public:
  BlockedInterrupts() {
    sigset_t interrupts;
    sigemptyset(&interrupts);
    for (const int number : kSignals) sigaddset(&interrupts, number);
    pthread_sigmask(SIG_BLOCK, &interrupts, &previous_);
  }
  ~BlockedInterrupts() { pthread_sigmask(SIG_SETMASK, &previous_, nullptr); }
  BlockedInterrupts(const BlockedInterrupts&) = delete;
  BlockedInterrupts& operator=(const BlockedInterrupts&) = delete;

  /// For a process forked while this lives, right before it executes its program: no handler of the parent
  /// runs in it, what came since the fork acts on it now, and the program starts with the mask from before.
  /// Ignored signals stay ignored. Makes only calls that are safe after fork.
  void restore_in_forked() const {
    for (const int number : kSignals) {
      struct sigaction action = {};
      sigaction(number, nullptr, &action);
      if (action.sa_handler == SIG_IGN) continue;
      action = {};
      action.sa_handler = SIG_DFL;
      sigaction(number, &action, nullptr);
    }
    pthread_sigmask(SIG_SETMASK, &previous_, nullptr);
  }

 private:
  static constexpr int kSignals[] = {SIGINT, SIGTERM};
  sigset_t previous_;
};

}  // namespace sluice::apps
