// BlockIo on files in memory, with scripted delays, short transfers, faults and order of completion. The
// cutting and resuming is the product's own (PieceIo), so a script says what the system does to single
// transfers.
//
// Bytes move at the moment of completion, not before: who uses a buffer too early sees it.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/mutex.h"
#include "offload/io/piece_io.h"

namespace sluice::offload::fakes {

/// Transfers that fail: those of `op` on `path` (empty: any file) that touch [begin, end).
struct FakeFault {
  IoOp op = IoOp::kRead;
  std::string path;
  std::int64_t begin = 0;
  std::int64_t end = INT64_MAX;
  int error = 0;   ///< the errno
  int times = -1;  ///< how many transfers; -1: all
};

struct FakeScript {
  std::uint64_t seed = 1;
  double short_share = 0;  ///< share of transfers that move only a part, ending at any byte
  std::vector<FakeFault> faults;
  std::chrono::microseconds delay{0};   ///< each transfer takes this long,
  std::chrono::microseconds jitter{0};  ///< and up to this much longer
  double bytes_per_sec = 0;  ///< of a slow disk whose transfers come one after another; 0: no limit
  bool reorder = false;      ///< completions come in random order
  std::int64_t capacity_bytes = INT64_MAX;  ///< of all files; beyond it writes get ENOSPC
};

/// The files, by path; several FakeIo may share them. Thread-safe.
class FakeDisk {
 public:
  void put(const std::string& path, std::vector<std::byte> content);
  std::vector<std::byte> content(const std::string& path) const;
  bool exists(const std::string& path) const;
  std::int64_t size(const std::string& path) const;
  /// As pread and pwrite: bytes moved or a negative errno. A write grows the file up to `capacity` of all
  /// files.
  std::int64_t read(const std::string& path, std::int64_t offset, std::byte* data, std::int64_t bytes) const;
  std::int64_t write(const std::string& path, std::int64_t offset, const std::byte* data, std::int64_t bytes,
                     std::int64_t capacity);

 private:
  mutable Mutex mutex_;
  std::map<std::string, std::vector<std::byte>> files_ SLUICE_GUARDED_BY(mutex_);
};

class FakeIo final : public PieceIo {
 public:
  FakeIo(const BlockIoOptions& options, std::shared_ptr<FakeDisk> disk, FakeScript script);
  ~FakeIo() override { drain(); }

  FileId open(const std::filesystem::path& path, FileMode mode) override;
  std::int64_t file_size(FileId file) const override { return disk_->size(queue_.file_name(file)); }
  void register_memory(std::span<std::byte> memory) override { (void)memory; }
  std::string description() const override { return "fake"; }

  std::int64_t num_transfers() const { return num_transfers_; }  ///< handed to the "system"
  std::int64_t most_out() const { return most_out_; }            ///< at the same time

 private:
  struct Transfer {
    Piece piece;
    Time due;
  };
  void start(const Piece& piece) override;
  bool reap(Time deadline) override;
  Status request_done(const IoRequest& request) override {
    (void)request;
    return {};
  }
  std::int64_t run(const Piece& piece);

  std::shared_ptr<FakeDisk> disk_;
  FakeScript script_;
  std::mt19937_64 random_;
  std::vector<Transfer> out_;
  Time disk_free_ = Time::min();  // when a slow disk has done all that it was given
  std::int64_t num_transfers_ = 0, most_out_ = 0;
};

}  // namespace sluice::offload::fakes
