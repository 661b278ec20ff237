#include "tests/fakes/fake_io.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

#include "core/error.h"

namespace sluice::offload::fakes {

void FakeDisk::put(const std::string& path, std::vector<std::byte> content) {
  const MutexLock lock(mutex_);
  files_[path] = std::move(content);
}

std::vector<std::byte> FakeDisk::content(const std::string& path) const {
  const MutexLock lock(mutex_);
  return files_.at(path);
}

bool FakeDisk::exists(const std::string& path) const {
  const MutexLock lock(mutex_);
  return files_.contains(path);
}

std::int64_t FakeDisk::size(const std::string& path) const {
  const MutexLock lock(mutex_);
  return static_cast<std::int64_t>(files_.at(path).size());
}

std::int64_t FakeDisk::read(const std::string& path, std::int64_t offset, std::byte* data,
                            std::int64_t bytes) const {
  const MutexLock lock(mutex_);
  const std::vector<std::byte>& file = files_.at(path);
  const std::int64_t there =
      std::clamp<std::int64_t>(static_cast<std::int64_t>(file.size()) - offset, 0, bytes);
  if (there > 0) std::memcpy(data, file.data() + offset, static_cast<std::size_t>(there));
  return there;
}

std::int64_t FakeDisk::write(const std::string& path, std::int64_t offset, const std::byte* data,
                             std::int64_t bytes, std::int64_t capacity) {
  const MutexLock lock(mutex_);
  std::vector<std::byte>& file = files_.at(path);
  std::int64_t others = 0;
  for (const auto& [name, content] : files_)
    others += name == path ? 0 : static_cast<std::int64_t>(content.size());
  const std::int64_t fit = std::min(bytes, std::max<std::int64_t>(capacity - others - offset, 0));
  if (fit == 0) return -ENOSPC;
  if (static_cast<std::int64_t>(file.size()) < offset + fit)
    file.resize(static_cast<std::size_t>(offset + fit));
  std::memcpy(file.data() + offset, data, static_cast<std::size_t>(fit));
  return fit;
}

FakeIo::FakeIo(const BlockIoOptions& options, std::shared_ptr<FakeDisk> disk, FakeScript script)
    : PieceIo(options), disk_(std::move(disk)), script_(std::move(script)), random_(script_.seed) {}

FileId FakeIo::open(const std::filesystem::path& path, FileMode mode) {
  SLUICE_ASSERT(in_flight() == 0);
  if (!disk_->exists(path.string())) {
    SLUICE_CHECK(mode == FileMode::kReadWriteCreate, Code::kNotFound,
                 fmt::format("{}: no such file or folder", path.string()), "check the path");
    disk_->put(path.string(), {});
  }
  return queue_.add_file(path.string());
}

void FakeIo::start(const Piece& piece) {
  Time due = std::chrono::steady_clock::now();
  if (script_.bytes_per_sec > 0) {
    const std::chrono::duration<double> busy(static_cast<double>(piece.bytes) / script_.bytes_per_sec);
    due = std::max(due, disk_free_) + std::chrono::duration_cast<Time::duration>(busy);
    disk_free_ = due;
  }
  due += script_.delay;
  if (script_.jitter.count() > 0) {
    due += std::chrono::microseconds(
        std::uniform_int_distribution<std::int64_t>(0, script_.jitter.count())(random_));
  }
  out_.push_back({piece, due});
  ++num_transfers_;
  most_out_ = std::max(most_out_, static_cast<std::int64_t>(out_.size()));
}

bool FakeIo::reap(Time deadline) {
  if (out_.empty()) return false;
  const auto earlier = [](const Transfer& a, const Transfer& b) { return a.due < b.due; };
  const Time first = std::min_element(out_.begin(), out_.end(), earlier)->due;
  if (first > std::chrono::steady_clock::now()) {
    if (deadline > Time::min()) std::this_thread::sleep_until(std::min(first, deadline));
    if (first > std::chrono::steady_clock::now()) return false;
  }
  const Time now = std::chrono::steady_clock::now();
  const auto due_end =
      std::stable_partition(out_.begin(), out_.end(), [&](const Transfer& t) { return t.due <= now; });
  std::int64_t chosen = std::min_element(out_.begin(), due_end, earlier) - out_.begin();
  if (script_.reorder) {
    chosen = std::uniform_int_distribution<std::int64_t>(0, due_end - out_.begin() - 1)(random_);
  }
  const Piece piece = out_[chosen].piece;
  out_.erase(out_.begin() + chosen);
  finish(piece.slot, run(piece));
  return true;
}

std::int64_t FakeIo::run(const Piece& piece) {
  const std::string& path = queue_.file_name(piece.file);
  for (FakeFault& fault : script_.faults) {
    const bool hit = fault.op == piece.op && (fault.path.empty() || fault.path == path) &&
                     piece.offset < fault.end && piece.offset + piece.bytes > fault.begin;
    if (!hit || fault.times == 0) continue;
    if (fault.times > 0) --fault.times;
    return -fault.error;
  }
  std::int64_t bytes = piece.bytes;
  if (script_.short_share > 0 && std::bernoulli_distribution(script_.short_share)(random_)) {
    bytes = std::uniform_int_distribution<std::int64_t>(1, piece.bytes)(random_);
  }
  return piece.op == IoOp::kRead
             ? disk_->read(path, piece.offset, piece.data, bytes)
             : disk_->write(path, piece.offset, piece.data, bytes, script_.capacity_bytes);
}

}  // namespace sluice::offload::fakes
