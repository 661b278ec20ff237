// Files that block I/O reads and writes: opened past the page cache where the file system allows it, and
// otherwise kept from filling it. Not thread-safe.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "offload/io/block_io.h"

namespace sluice::offload {

/// Owns a file descriptor; closed by the destructor.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept;
  UniqueFd& operator=(UniqueFd&& other) noexcept;
  ~UniqueFd();
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

class BlockFile {
 public:
  /// Throws Error{kNotFound} if it does not exist, Error{kIo} for any other refusal.
  BlockFile(const std::filesystem::path& path, FileMode mode, bool allow_direct);
  BlockFile(BlockFile&&) noexcept = default;
  BlockFile& operator=(BlockFile&&) noexcept = default;
  ~BlockFile();

  int fd() const { return fd_.get(); }
  bool direct() const { return direct_; }
  const std::filesystem::path& path() const { return path_; }
  /// Throws Error{kIo}.
  std::int64_t size() const;
  /// After a transfer: if the file is buffered, waits until written pages are on the disk and drops the
  /// range's pages from the page cache. Fails if they cannot be written. Does nothing for a direct file.
  Status drop_behind(IoOp op, std::int64_t offset, std::int64_t bytes) const;

 private:
  std::filesystem::path path_;
  UniqueFd fd_;
  bool direct_ = false;
};

/// The files of one BlockIo.
class BlockFiles {
 public:
  explicit BlockFiles(bool allow_direct) : allow_direct_(allow_direct) {}
  /// Opens a file, with one warning a process if it has to be buffered although direct I/O was asked for.
  const BlockFile& open(const std::filesystem::path& path, FileMode mode);
  const BlockFile& operator[](FileId file) const { return files_.at(static_cast<std::size_t>(file)); }
  /// "O_DIRECT", "buffered" or "O_DIRECT, 2 of 5 files buffered".
  std::string description() const;

 private:
  bool allow_direct_;
  std::vector<BlockFile> files_;
};

}  // namespace sluice::offload
