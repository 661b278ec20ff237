// What every BlockIo has in common: requests go into a PieceQueue, pieces go to the system, results come
// back. A derived class only starts pieces and reaps results. Not thread-safe.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "offload/io/block_io.h"
#include "offload/io/piece_queue.h"

namespace sluice::offload {

class PieceIo : public BlockIo {
 public:
  bool try_submit(const IoRequest& request) final;
  std::optional<IoCompletion> wait(std::chrono::steady_clock::time_point deadline) final;
  std::int64_t in_flight() const final { return queue_.requests_held(); }

 protected:
  using Time = std::chrono::steady_clock::time_point;

  /// Throws Error{kInvalidArgument} for options that make no sense.
  explicit PieceIo(const BlockIoOptions& options);

  /// Hands a piece to the system; at most queue_depth are out at a time.
  virtual void start(const Piece& piece) = 0;
  /// Calls finish() for the results that are there; if there are none, waits for the first until `deadline`.
  /// False if the deadline came first.
  virtual bool reap(Time deadline) = 0;
  /// Called after a request's last byte has moved, before its completion is returned; a failure becomes the
  /// completion's.
  virtual Status request_done(const IoRequest& request) = 0;

  void finish(std::int32_t slot, std::int64_t result);
  /// For destructors of derived classes: starts nothing more, and waits for what is out. Never throws.
  void drain() noexcept;

  const BlockIoOptions options_;
  PieceQueue queue_;

 private:
  void pump();
};

}  // namespace sluice::offload
