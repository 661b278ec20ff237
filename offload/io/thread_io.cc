#include "offload/io/thread_io.h"

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <vector>

#include "core/error.h"
#include "core/mutex.h"
#include "core/units.h"
#include "offload/io/block_file.h"
#include "offload/io/piece_io.h"

namespace sluice::offload {
namespace {

constexpr int kMaxThreads = 32;

class ThreadIo final : public PieceIo {
 public:
  explicit ThreadIo(const BlockIoOptions& options)
      : PieceIo(options), files_(options.allow_direct), todo_(reserved<Job>()), done_(reserved<Result>()) {
    reaped_.reserve(static_cast<std::size_t>(options.queue_depth));
    const int wanted = std::min(options.queue_depth, kMaxThreads);
    threads_.reserve(static_cast<std::size_t>(wanted));  // a vector that cannot grow would wait for them
    try {
      for (int i = 0; i < wanted; ++i) threads_.emplace_back([this] { work(); });
    } catch (const std::system_error& e) {
      if (!threads_.empty()) return;  // fewer threads, the same results
      throw Error(Code::kIo, fmt::format("cannot start a thread for disk I/O: {}", e.what()),
                  "raise the limit of processes (ulimit -u)");
    }
  }
  ~ThreadIo() override {
    drain();
    {
      const MutexLock lock(mutex_);
      stopping_ = true;
    }
    work_ready_.notify_all();
  }

  FileId open(const std::filesystem::path& path, FileMode mode) override {
    SLUICE_ASSERT(in_flight() == 0);
    files_.open(path, mode);
    return queue_.add_file(path.string());
  }
  std::int64_t file_size(FileId file) const override { return files_[file].size(); }
  void register_memory(std::span<std::byte> memory) override { (void)memory; }  // pread has no use for it
  std::string description() const override {
    return fmt::format("{} threads, {}, queue depth {} of {}", threads_.size(), files_.description(),
                       options_.queue_depth, format_bytes(options_.piece_bytes));
  }

 private:
  struct Job {
    Piece piece;
    int fd = -1;
  };
  struct Result {
    std::int32_t slot = 0;
    std::int64_t result = 0;
  };

  template <class T>
  std::vector<T> reserved() const {
    std::vector<T> items;
    items.reserve(static_cast<std::size_t>(options_.queue_depth));
    return items;
  }

  void start(const Piece& piece) override {
    {
      const MutexLock lock(mutex_);
      todo_.push_back({piece, files_[piece.file].fd()});
    }
    work_ready_.notify_one();
  }
  bool reap(Time deadline) override;
  Status request_done(const IoRequest& r) override {
    return files_[r.file].drop_behind(r.op, r.offset, r.bytes);
  }
  void work();

  // the owning thread only
  BlockFiles files_;
  std::vector<Result> reaped_;

  Mutex mutex_;
  Condition work_ready_, result_ready_;
  // At most queue_depth entries each, so that they never grow.
  std::vector<Job> todo_ SLUICE_GUARDED_BY(mutex_);
  std::vector<Result> done_ SLUICE_GUARDED_BY(mutex_);
  bool stopping_ SLUICE_GUARDED_BY(mutex_) = false;

  std::vector<std::jthread> threads_;  // last: joined before the rest goes
};

void ThreadIo::work() {
  while (true) {
    Job job;
    {
      const MutexLock lock(mutex_);
      while (todo_.empty() && !stopping_) work_ready_.wait(mutex_);
      if (todo_.empty()) return;
      job = todo_.front();  // in the order of the file, which disks like; the list is short
      todo_.erase(todo_.begin());
    }
    const Piece& p = job.piece;
    const auto bytes = static_cast<std::size_t>(p.bytes);
    const ssize_t moved = p.op == IoOp::kRead ? pread(job.fd, p.data, bytes, p.offset)
                                              : pwrite(job.fd, p.data, bytes, p.offset);
    const std::int64_t result = moved >= 0 ? moved : -errno;
    {
      const MutexLock lock(mutex_);
      done_.push_back({p.slot, result});
    }
    result_ready_.notify_one();
  }
}

bool ThreadIo::reap(Time deadline) {
  {
    const MutexLock lock(mutex_);
    while (done_.empty()) {
      const Time now = std::chrono::steady_clock::now();
      if (deadline <= now) return false;
      // An hour at most: the end of time does not fit into the wait.
      result_ready_.wait_until(mutex_, std::min<Time>(deadline, now + std::chrono::hours(1)));
    }
    std::swap(done_, reaped_);
  }
  for (const Result& r : reaped_) finish(r.slot, r.result);
  reaped_.clear();
  return true;
}

}  // namespace

std::unique_ptr<BlockIo> make_thread_io(const BlockIoOptions& options) {
  return std::make_unique<ThreadIo>(options);
}

}  // namespace sluice::offload
