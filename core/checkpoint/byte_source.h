// Positional reading of one checkpoint file: from disk for the product, from memory for tests and fuzzing.
// A source belongs to one thread; several sources may read the same file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <sys/types.h>

#include "core/error.h"

namespace sluice {

/// A run of bytes with a name for messages. The size is fixed when it is opened.
class ByteSource {
 public:
  ByteSource(const ByteSource&) = delete;
  ByteSource& operator=(const ByteSource&) = delete;
  virtual ~ByteSource() = default;

  const std::string& name() const { return name_; }
  std::int64_t size() const { return size_; }

  /// Fills `out` from `offset`. Throws Error{kCorrupt} if the range leaves the source, Error{kIo} if the
  /// operating system fails the read; both name the source and the offset.
  void read_at(std::int64_t offset, std::span<std::byte> out);
  /// read_at into a string of `bytes` bytes, which is allocated once the range is known to be inside.
  std::string read_text(std::int64_t offset, std::int64_t bytes);

 protected:
  ByteSource(std::string name, std::int64_t size) : name_(std::move(name)), size_(size) {}
  virtual void read_inside(std::int64_t offset, std::span<std::byte> out) = 0;
  std::string name_;
  std::int64_t size_ = 0;

 private:
  void check_range(std::int64_t offset, std::int64_t bytes) const;
};

/// Bytes that somebody else keeps alive.
class MemorySource final : public ByteSource {
 public:
  MemorySource(std::span<const std::byte> bytes, std::string name)
      : ByteSource(std::move(name), static_cast<std::int64_t>(bytes.size())), bytes_(bytes) {}

 private:
  void read_inside(std::int64_t offset, std::span<std::byte> out) override;
  std::span<const std::byte> bytes_;
};

/// A regular file, read with pread. Long reads are dropped from the page cache behind the reader, so that a
/// checkpoint of hundreds of gigabytes does not push everything else out of it.
class FileSource : public ByteSource {
 public:
  /// Throws Error{kNotFound} if the file does not exist, {kInvalidArgument} if it is no regular file,
  /// {kIo} if it cannot be opened.
  explicit FileSource(const std::filesystem::path& path);
  ~FileSource() override;

 protected:
  /// pread(2); a seam for fault injection.
  virtual ssize_t pread_some(void* out, std::size_t bytes, std::int64_t offset);

 private:
  void read_inside(std::int64_t offset, std::span<std::byte> out) final;

  int fd_ = -1;
  std::int64_t dropped_bytes_ = 0;
};

/// Throws Error{kCorrupt} that names the source and the offset.
[[noreturn]] void throw_corrupt(
    const ByteSource& source, std::int64_t offset, const std::string& what,
    const std::string& fix = "the file is damaged or incomplete: download it again");

}  // namespace sluice
