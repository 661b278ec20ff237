// Cuts requests into pieces and puts their results together: the part of block I/O that knows no system call,
// so that scripted results test it. Not thread-safe; allocates only in the constructor, in add_file, and for
// the message of a failure.
//
// A piece is handed out by next(), comes back through finish() with what the system said, and is handed out
// again as long as something of it is missing and there is hope. Requests are cut in the order in which they
// came; resumed pieces go first.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "offload/io/block_io.h"

namespace sluice::offload {

/// One transfer for the system.
struct Piece {
  std::int32_t slot = 0;  ///< names the piece in finish(); below queue_depth
  IoOp op = IoOp::kRead;
  FileId file = 0;
  std::int64_t offset = 0;
  std::byte* data = nullptr;
  std::int64_t bytes = 0;
};

/// A completion with the request it belongs to.
struct FinishedRequest {
  IoRequest request;
  IoCompletion completion;
};

namespace detail {
/// A first-in first-out queue that never grows.
class IndexRing {
 public:
  explicit IndexRing(int capacity) : items_(static_cast<std::size_t>(capacity)) {}
  bool empty() const { return size_ == 0; }
  void push(std::int32_t item) {
    SLUICE_ASSERT(size_ < items_.size());
    items_[(head_ + size_++) % items_.size()] = item;
  }
  std::int32_t front() const { return items_[head_]; }
  std::int32_t pop() {
    const std::int32_t item = items_[head_];
    head_ = (head_ + 1) % items_.size();
    --size_;
    return item;
  }

 private:
  std::vector<std::int32_t> items_;
  std::size_t head_ = 0, size_ = 0;
};
}  // namespace detail

class PieceQueue {
 public:
  /// A transfer that returned EIO is tried this many times more.
  static constexpr int kIoErrorRetries = 1;
  /// EINTR, EAGAIN and transfers without progress are tried this often in a row, so that nothing spins for
  /// ever.
  static constexpr int kMaxIdleTries = 1000;

  /// A read that ends at the same byte inside a block this often in a row has met the end of the file.
  static constexpr int kSameEnds = 3;

  PieceQueue(int queue_depth, std::int64_t piece_bytes, int max_requests);

  /// `name` is used in messages. Returns 0, 1, 2, ...
  FileId add_file(std::string name);
  const std::string& file_name(FileId file) const { return names_.at(static_cast<std::size_t>(file)); }
  std::int64_t num_files() const { return static_cast<std::int64_t>(names_.size()); }

  /// Takes a request; false when max_requests are held. Throws Error{kInternal} for one that breaks the rules
  /// of block_io.h.
  bool try_add(const IoRequest& request);
  /// The next piece to start; empty when none is ready or queue_depth are out.
  std::optional<Piece> next();
  /// Takes what the system said about the piece in `slot`: bytes moved, or a negative errno.
  void finish(std::int32_t slot, std::int64_t result);
  /// A request that is done, successfully or not; empty if there is none.
  std::optional<FinishedRequest> pop_finished();

  /// Ends every request that is not done with kCancelled: no more pieces are handed out, those that are out
  /// must still be finished.
  void cancel();

  std::int64_t requests_held() const { return held_; }
  std::int64_t pieces_out() const { return out_; }

 private:
  struct Request {
    IoRequest request;
    std::int64_t handed_bytes = 0;  // cut so far
    std::int64_t moved_bytes = 0;   // of finished pieces
    std::int32_t pieces = 0;        // cut and not finished, whether out or waiting to be resumed
    Status failure;                 // the first one
  };
  struct Slot {
    Piece piece;  // what is still missing of it
    std::int32_t request = 0;
    std::int64_t whole_bytes = 0;  // at the start
    std::int64_t last_end = 0;     // where inside a block the transfer before ended
    int same_ends = 0;             // and how often it did so without getting on
    int io_errors = 0, idle_tries = 0;
  };

  Piece hand_out(std::int32_t slot);
  void move_on(Slot& slot, std::int64_t result);
  void fail_with_errno(Slot& slot, int error);
  void fail_at_end(Slot& slot, std::int64_t result);
  void fail(Slot& slot, Status failure);
  void end_piece(Slot& slot, std::int64_t moved_bytes);

  // fixed after construction
  const std::int64_t piece_bytes_;
  // the owning thread only
  std::vector<std::string> names_;
  std::vector<Request> requests_;
  std::vector<Slot> slots_;
  std::vector<std::int32_t> free_requests_, free_slots_;  // stacks
  detail::IndexRing to_cut_, to_resume_, finished_;
  std::int64_t held_ = 0, out_ = 0;
};

}  // namespace sluice::offload
