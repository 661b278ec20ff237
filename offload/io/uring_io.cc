// The one file that knows liburing.
#include "offload/io/uring_io.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <sys/resource.h>
#include <sys/uio.h>
#include <thread>

#include <liburing.h>

#include "core/errno_text.h"
#include "core/error.h"
#include "core/log.h"
#include "core/units.h"
#include "offload/io/block_file.h"
#include "offload/io/piece_io.h"
#include "offload/io/registered_memory.h"

namespace sluice::offload {
namespace {

using std::chrono::steady_clock;

constexpr int kMaxRegisteredFiles = 1024;
constexpr int kMaxRegisteredPieces = 1024;        // of 1 GiB: more than one machine holds
constexpr std::int64_t kRegisteredPiece = 1_GiB;  // the kernel's limit for one buffer
constexpr int kMaxSubmitTries = 1000;             // of 1 ms

/// An io_uring; set up by the constructor or refused with Error{kUnsupported}.
class Ring {
 public:
  explicit Ring(int queue_depth) {
    // Completions are processed when the owner enters the kernel, not by interrupting it. Kernels before 5.19
    // do not know the flags; theirs is the plain ring.
    int result = init(queue_depth, IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG);
    if (result == -EINVAL) result = init(queue_depth, 0);
    SLUICE_CHECK(result == 0, Code::kUnsupported, fmt::format("io_uring refused: {}", errno_text(-result)),
                 "allow it (sysctl kernel.io_uring_disabled, the sandbox's system call filter, ulimit -l)");
  }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  ~Ring() { io_uring_queue_exit(&ring_); }
  io_uring* get() { return &ring_; }

 private:
  int init(int queue_depth, unsigned flags) {
    io_uring_params params = {};
    params.flags = flags;
    return io_uring_queue_init_params(static_cast<unsigned>(queue_depth), &ring_, &params);
  }
  io_uring ring_ = {};
};

class UringIo final : public PieceIo {
 public:
  explicit UringIo(const BlockIoOptions& options)
      : PieceIo(options),
        ring_(options.queue_depth),
        files_(options.allow_direct),
        memory_(kMaxRegisteredPieces) {
    rlimit limit = {};
    getrlimit(RLIMIT_NOFILE, &limit);
    const auto slots = static_cast<int>(std::min<rlim_t>(kMaxRegisteredFiles, limit.rlim_cur));
    if (io_uring_register_files_sparse(ring_.get(), static_cast<unsigned>(slots)) == 0) file_slots_ = slots;
    buffers_possible_ = io_uring_register_buffers_sparse(ring_.get(), kMaxRegisteredPieces) == 0;
  }
  ~UringIo() override { drain(); }

  FileId open(const std::filesystem::path& path, FileMode mode) override;
  std::int64_t file_size(FileId file) const override { return files_[file].size(); }
  void register_memory(std::span<std::byte> memory) override;
  std::string description() const override;

 private:
  void start(const Piece& piece) override;
  void flush();
  bool reap(Time deadline) override;
  Status request_done(const IoRequest& r) override {
    return files_[r.file].drop_behind(r.op, r.offset, r.bytes);
  }

  bool reap_ready();

  // the owning thread only
  Ring ring_;
  BlockFiles files_;
  RegisteredMemory memory_;
  std::int64_t memory_asked_ = 0;
  int file_slots_ = 0;             // files below it are registered
  bool buffers_possible_ = false;  // the ring has a table for them
};

FileId UringIo::open(const std::filesystem::path& path, FileMode mode) {
  SLUICE_ASSERT(in_flight() == 0);
  const BlockFile& file = files_.open(path, mode);
  const FileId id = queue_.add_file(path.string());
  const int fd = file.fd();
  if (id < file_slots_ &&
      io_uring_register_files_update(ring_.get(), static_cast<unsigned>(id), &fd, 1) != 1) {
    file_slots_ = id;  // this one and later ones go by their descriptor
  }
  return id;
}

void UringIo::register_memory(std::span<std::byte> memory) {
  SLUICE_ASSERT(in_flight() == 0);
  memory_asked_ += static_cast<std::int64_t>(memory.size());
  int error = buffers_possible_ ? 0 : ENOSYS;
  while (!memory.empty() && error == 0) {
    const auto piece = memory.first(std::min(memory.size(), static_cast<std::size_t>(kRegisteredPiece)));
    const iovec buffer = {piece.data(), piece.size()};
    const __u64 tag = 0;
    const int index = memory_.size();
    const int result = index == kMaxRegisteredPieces
                           ? -ENOSPC
                           : io_uring_register_buffers_update_tag(ring_.get(), static_cast<unsigned>(index),
                                                                  &buffer, &tag, 1);
    if (result == 1) {
      memory_.add(piece, index);
      memory = memory.subspan(piece.size());
    } else {
      error = result < 0 ? -result : EINVAL;
    }
  }
  static std::atomic<bool> warned{false};
  if (error != 0 && !warned.exchange(true)) {
    rlimit limit = {};
    getrlimit(RLIMIT_MEMLOCK, &limit);
    const std::string limit_text = limit.rlim_cur == RLIM_INFINITY
                                       ? "unlimited"
                                       : format_bytes(static_cast<std::int64_t>(limit.rlim_cur));
    log_warn(
        "io_uring: {} of {} of memory registered, then refused: {}; going on without (a little slower). "
        "RLIMIT_MEMLOCK is {}: raise it with ulimit -l",
        format_bytes(memory_.bytes()), format_bytes(memory_asked_), errno_text(error), limit_text);
  }
}

void UringIo::start(const Piece& piece) {
  io_uring_sqe* sqe = io_uring_get_sqe(ring_.get());
  SLUICE_ASSERT(sqe != nullptr);  // the ring holds queue_depth entries and the queue hands out no more
  const bool fixed_file = piece.file < file_slots_;
  const int fd = fixed_file ? piece.file : files_[piece.file].fd();
  const auto bytes = static_cast<unsigned>(piece.bytes);
  const auto offset = static_cast<std::uint64_t>(piece.offset);
  const int buffer = memory_.find(piece.data, piece.bytes);
  if (piece.op == IoOp::kRead) {
    if (buffer >= 0) {
      io_uring_prep_read_fixed(sqe, fd, piece.data, bytes, offset, buffer);
    } else {
      io_uring_prep_read(sqe, fd, piece.data, bytes, offset);
    }
  } else {
    if (buffer >= 0) {
      io_uring_prep_write_fixed(sqe, fd, piece.data, bytes, offset, buffer);
    } else {
      io_uring_prep_write(sqe, fd, piece.data, bytes, offset);
    }
  }
  if (fixed_file) io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
  io_uring_sqe_set_data64(sqe, static_cast<std::uint64_t>(piece.slot));
  // One by one: of a batch the kernel merges neighbouring pieces into larger requests, and these are 6 %
  // slower on a virtual disk of 1.7 GB/s (1.57 against 1.67 GB/s, 32 pieces of 1 MiB in flight). A call a MiB
  // costs nothing.
  flush();
}

void UringIo::flush() {
  for (int tries = 0; io_uring_sq_ready(ring_.get()) > 0;) {
    const int result = io_uring_submit(ring_.get());
    if (result > 0 || result == -EINTR) continue;
    // 0, EAGAIN or EBUSY: the kernel is short of memory. The entries stay in the ring and go with the next
    // submission; while something else is under way its completion is the time to try again.
    const bool busy = result == 0 || result == -EAGAIN || result == -EBUSY;
    if (busy && queue_.pieces_out() > static_cast<std::int64_t>(io_uring_sq_ready(ring_.get()))) return;
    SLUICE_CHECK(busy && ++tries < kMaxSubmitTries, Code::kIo,
                 fmt::format("io_uring takes no more requests: {}", errno_text(-result)),
                 "the machine may be short of memory: lower --cpu-memory or the I/O queue depth");
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

bool UringIo::reap_ready() {
  std::array<io_uring_cqe*, 64> cqes;
  bool any = false;
  while (const unsigned count = io_uring_peek_batch_cqe(ring_.get(), cqes.data(), cqes.size())) {
    for (unsigned i = 0; i < count; ++i) {
      // Kernels before 5.11 have waits with a time limit through an entry of their own.
      const std::uint64_t data = io_uring_cqe_get_data64(cqes[i]);
      if (data != LIBURING_UDATA_TIMEOUT) finish(static_cast<std::int32_t>(data), cqes[i]->res);
    }
    io_uring_cq_advance(ring_.get(), count);
    any = true;
  }
  return any;
}

bool UringIo::reap(Time deadline) {
  while (!reap_ready()) {
    const Time now = steady_clock::now();
    if (deadline <= now) return false;
    if (io_uring_sq_ready(ring_.get()) > 0) flush();
    // An hour at most: a deadline may be the end of time, which a timespec cannot say.
    const auto left = std::min<steady_clock::duration>(deadline - now, std::chrono::hours(1));
    const auto seconds = std::chrono::floor<std::chrono::seconds>(left);
    __kernel_timespec timeout = {seconds.count(), std::chrono::nanoseconds(left - seconds).count()};
    io_uring_cqe* cqe = nullptr;
    const int result = io_uring_wait_cqe_timeout(ring_.get(), &cqe, &timeout);
    const bool expected =
        result == 0 || result == -ETIME || result == -EINTR || result == -EAGAIN || result == -EBUSY;
    SLUICE_CHECK(expected, Code::kIo, fmt::format("waiting for io_uring failed: {}", errno_text(-result)),
                 "look into the kernel's log");
  }
  return true;
}

std::string UringIo::description() const {
  std::string text = fmt::format("io_uring, {}, queue depth {} of {}", files_.description(),
                                 options_.queue_depth, format_bytes(options_.piece_bytes));
  if (memory_asked_ > 0) {
    text += fmt::format(", {} of {} registered", format_bytes(memory_.bytes()), format_bytes(memory_asked_));
  }
  return text;
}

}  // namespace

std::unique_ptr<BlockIo> make_uring_io(const BlockIoOptions& options) {
  return std::make_unique<UringIo>(options);
}

}  // namespace sluice::offload
