// Asynchronous reads and writes of whole blocks. One object, one thread: the lane that owns it submits and
// reaps (it may be built on another thread first). Implementations: UringIo (disks), ThreadIo (where io_uring
// is forbidden), FakeIo (tests: scripted delays, short transfers and faults).
//
// Offsets, lengths and addresses are multiples of kPageAlign, so that O_DIRECT works; anything else is a bug
// of the caller and throws Error{kInternal}. A request of any length is cut into pieces that keep the queue
// full; short transfers are resumed, EINTR/EAGAIN retried, and an EIO tried once more with a warning, so a
// completion is final.
//
// A read never invents bytes: one that reaches beyond the end of its file fails with kIo naming file, offset,
// the bytes expected and the bytes got. Files that are read to their end are padded to kPageAlign, so a file
// that ends inside a block has been truncated.
//
// The destructor waits for what the system already has in flight and drops the rest: destroy the object
// before the memory that its requests point into.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>

#include "core/error.h"

namespace sluice::offload {

enum class IoOp : std::uint8_t { kRead, kWrite };
enum class FileMode : std::uint8_t { kRead, kReadWriteCreate };

/// Index of an opened file.
using FileId = std::int32_t;

struct IoRequest {
  IoOp op = IoOp::kRead;
  FileId file = 0;
  std::int64_t offset = 0;
  std::byte* data = nullptr;
  std::int64_t bytes = 0;
  std::uint64_t tag = 0;  ///< comes back in the completion
};

struct IoCompletion {
  std::uint64_t tag = 0;
  Status status;           ///< failures name the file, the offset and the system's reason
  std::int64_t bytes = 0;  ///< transferred
};

class BlockIo {
 public:
  virtual ~BlockIo() = default;

  /// Opens with O_DIRECT where the file system allows it, else buffered with one warning (pages are then
  /// dropped behind the transfer). Throws Error{kIo, kNotFound}. Not while requests are in flight.
  virtual FileId open(const std::filesystem::path& path, FileMode mode) = 0;
  /// The file's length now. Throws Error{kIo}.
  virtual std::int64_t file_size(FileId file) const = 0;
  /// Registers memory that later requests point into, in pieces of at most 1 GiB; where RLIMIT_MEMLOCK or the
  /// kernel forbids it, says so once and goes on without. Not while requests are in flight.
  virtual void register_memory(std::span<std::byte> memory) = 0;
  /// Takes the request, or returns false when max_requests are in flight already, finished ones that `wait`
  /// has not returned yet included. A request of 0 bytes completes like any other.
  virtual bool try_submit(const IoRequest& request) = 0;
  /// The next completion, in any order; waits until `deadline` at most, and a deadline in the past (such as a
  /// default-constructed one) polls. Empty at the deadline, or if nothing is in flight. Between two calls no
  /// new piece is handed to the system, so call it often. Throws Error{kIo} if the system's queue itself
  /// fails.
  virtual std::optional<IoCompletion> wait(std::chrono::steady_clock::time_point deadline) = 0;
  virtual std::int64_t in_flight() const = 0;
  /// "io_uring, O_DIRECT, queue depth 64 of 1.00 MiB": for reports.
  virtual std::string description() const = 0;
};

/// The defaults were the best of 512 KiB x 64 to 8 MiB x 16, in reads and in writes, on a virtual disk with
/// both cores busy: a disk that copies is quicker at 1 MiB than at 4 MiB, and with fewer bytes in flight it
/// starves while the thread that reaps waits for its turn.
struct BlockIoOptions {
  int queue_depth = 64;  ///< pieces in flight
  std::int64_t piece_bytes = 1 << 20;
  int max_requests = 64;
  bool allow_direct = true;
  bool allow_uring = true;
};

/// UringIo, or ThreadIo where io_uring cannot be had (with one warning a process) or is not wanted. Throws
/// Error{kInvalidArgument} for options that make no sense, Error{kIo} where not even threads can be had.
std::unique_ptr<BlockIo> make_block_io(const BlockIoOptions& options);

}  // namespace sluice::offload
