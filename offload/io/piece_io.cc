#include "offload/io/piece_io.h"

#include <cerrno>
#include <thread>

#include "core/error.h"
#include "core/log.h"
#include "core/units.h"

namespace sluice::offload {
namespace {

constexpr int kMaxQueueDepth = 4096;

const BlockIoOptions& checked(const BlockIoOptions& options) {
  SLUICE_CHECK(options.queue_depth >= 1 && options.queue_depth <= kMaxQueueDepth, Code::kInvalidArgument,
               fmt::format("I/O queue depth {}", options.queue_depth),
               fmt::format("use 1 to {}", kMaxQueueDepth));
  // The kernel moves at most 2 GiB - 4 KiB in one call.
  SLUICE_CHECK(options.piece_bytes >= kPageAlign && options.piece_bytes % kPageAlign == 0 &&
                   options.piece_bytes <= 1_GiB,
               Code::kInvalidArgument, fmt::format("I/O piece of {} bytes", options.piece_bytes),
               fmt::format("use a multiple of {} up to 1 GiB", kPageAlign));
  SLUICE_CHECK(options.max_requests >= 1, Code::kInvalidArgument,
               fmt::format("{} I/O requests at a time", options.max_requests), "use 1 or more");
  return options;
}

}  // namespace

PieceIo::PieceIo(const BlockIoOptions& options)
    : options_(checked(options)), queue_(options.queue_depth, options.piece_bytes, options.max_requests) {}

bool PieceIo::try_submit(const IoRequest& request) {
  if (!queue_.try_add(request)) return false;
  pump();
  return true;
}

std::optional<IoCompletion> PieceIo::wait(Time deadline) {
  reap(Time::min());  // polls, so that the disk gets new pieces even while finished requests wait here
  while (true) {
    pump();
    if (std::optional<FinishedRequest> done = queue_.pop_finished()) {
      if (done->completion.status.ok()) done->completion.status = request_done(done->request);
      return std::move(done->completion);
    }
    if (queue_.pieces_out() == 0 || !reap(deadline)) return std::nullopt;
  }
}

void PieceIo::pump() {
  while (const std::optional<Piece> piece = queue_.next()) start(*piece);
}

void PieceIo::finish(std::int32_t slot, std::int64_t result) {
  // The system is short of something; without a pause the tries would be used up before it recovers.
  if (result == -EAGAIN) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  queue_.finish(slot, result);
}

void PieceIo::drain() noexcept {
  try {
    queue_.cancel();
    while (queue_.pieces_out() > 0) reap(Time::max());
  } catch (const std::exception& e) {
    log_error("block I/O: cannot wait for {} transfers at the end: {}", queue_.pieces_out(), e.what());
  }
}

}  // namespace sluice::offload
