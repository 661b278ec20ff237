#include "kernels/device/cpu/thread_starter.h"

#include <system_error>
#include <utility>

#include "core/error.h"

namespace sluice::kernels {

ThreadStarter::ThreadStarter(std::string owner, int total, ThreadMaker make)
    : owner_(std::move(owner)), total_(total), make_(std::move(make)) {}

std::jthread ThreadStarter::start(std::function<void()> work) {
  try {
    std::jthread thread = make_ ? make_(std::move(work)) : std::jthread(std::move(work));
    ++started_;
    return thread;
  } catch (const std::system_error& e) {
    throw Error(
        Code::kOutOfMemory,
        fmt::format("thread {} of {} of {} did not start: {}", started_ + 1, total_, owner_, e.what()),
        "raise the limit on processes (ulimit -u), or end other programs");
  }
}

}  // namespace sluice::kernels
