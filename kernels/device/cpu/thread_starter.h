// Starts the threads of one owner. A system that has no thread left (a limit on processes, no memory for a
// stack) is an Error with numbers and a remedy. Belongs to one thread.
#pragma once

#include <functional>
#include <string>
#include <thread>

namespace sluice::kernels {

/// Makes a thread that does `work`, or throws std::system_error: the system's threads, but for tests in which
/// a start fails.
using ThreadMaker = std::function<std::jthread(std::function<void()> work)>;

class ThreadStarter {
 public:
  /// For `total` threads of `owner`, a noun of the message. An empty `make` asks the system.
  ThreadStarter(std::string owner, int total, ThreadMaker make = {});

  /// Throws Error{kOutOfMemory} if the thread cannot be started. Those started before go on: it is for the
  /// caller to end them.
  std::jthread start(std::function<void()> work);

 private:
  const std::string owner_;
  const int total_;
  const ThreadMaker make_;
  int started_ = 0;
};

}  // namespace sluice::kernels
