#include "core/checkpoint/byte_source.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include "core/errno_text.h"
#include "core/units.h"

namespace sluice {
namespace {

// Reads of at least this size are weights, not headers: they are announced to the kernel as one range, so
// that it reads ahead at full depth, and dropped from the page cache once copied.
constexpr std::int64_t kLongReadBytes = 1_MiB;

}  // namespace

void throw_corrupt(const ByteSource& source, std::int64_t offset, const std::string& what,
                   const std::string& fix) {
  throw Error(Code::kCorrupt, fmt::format("{}: offset {}: {}", source.name(), offset, what), fix);
}

void ByteSource::check_range(std::int64_t offset, std::int64_t bytes) const {
  if (offset < 0 || offset > size_ || bytes > size_ - offset) {
    throw_corrupt(*this, offset,
                  fmt::format("{} bytes are needed here, the file has {} in all", bytes, size_));
  }
}

void ByteSource::read_at(std::int64_t offset, std::span<std::byte> out) {
  check_range(offset, static_cast<std::int64_t>(out.size()));
  if (!out.empty()) read_inside(offset, out);
}

std::string ByteSource::read_text(std::int64_t offset, std::int64_t bytes) {
  check_range(offset, bytes);
  std::string text(static_cast<std::size_t>(bytes), '\0');
  read_at(offset, std::as_writable_bytes(std::span(text)));
  return text;
}

void MemorySource::read_inside(std::int64_t offset, std::span<std::byte> out) {
  std::memcpy(out.data(), bytes_.data() + offset, out.size());
}

FileSource::FileSource(const std::filesystem::path& path) : ByteSource(path.string(), 0) {
  fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd_ < 0) {
    const int error = errno;
    throw Error(error == ENOENT || error == ENOTDIR ? Code::kNotFound : Code::kIo,
                fmt::format("{}: cannot open: {}", name_, errno_text(error)),
                "check the path and its permissions");
  }
  struct stat info {};
  const bool known = ::fstat(fd_, &info) == 0;
  if (!known || !S_ISREG(info.st_mode)) {
    const int error = errno;
    ::close(fd_);
    SLUICE_CHECK(known, Code::kIo, fmt::format("{}: fstat: {}", name_, errno_text(error)),
                 "check the file system");
    throw Error(Code::kInvalidArgument, fmt::format("{}: not a regular file", name_),
                "give a checkpoint folder or file");
  }
  size_ = info.st_size;
}

FileSource::~FileSource() {
  // What the kernel read ahead of the last read is still cached. Advice only: a failure changes nothing.
  if (dropped_bytes_ > 0) (void)::posix_fadvise(fd_, 0, 0, POSIX_FADV_DONTNEED);
  ::close(fd_);
}

ssize_t FileSource::pread_some(void* out, std::size_t bytes, std::int64_t offset) {
  return ::pread(fd_, out, bytes, offset);
}

void FileSource::read_inside(std::int64_t offset, std::span<std::byte> out) {
  const auto bytes = static_cast<std::int64_t>(out.size());
  const bool is_long = bytes >= kLongReadBytes;
  if (is_long) (void)::posix_fadvise(fd_, offset, 2 * bytes, POSIX_FADV_WILLNEED);
  std::int64_t done = 0;
  while (done < bytes) {
    const ssize_t got = pread_some(out.data() + done, static_cast<std::size_t>(bytes - done), offset + done);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    SLUICE_CHECK(got >= 0, Code::kIo,
                 fmt::format("{}: offset {}: reading {} bytes: {}", name_, offset + done, bytes - done,
                             errno_text(errno)),
                 "check the disk (dmesg) or copy the checkpoint to another one");
    if (got == 0)
      throw_corrupt(*this, offset + done, fmt::format("the file ended early; it had {} bytes", size_));
    done += got;
  }
  if (is_long) {
    // Only whole pages are dropped; starting at the page of `offset` takes the one that the read before
    // this one had to leave.
    const std::int64_t start = offset / kPageAlign * kPageAlign;
    (void)::posix_fadvise(fd_, start, offset + bytes - start, POSIX_FADV_DONTNEED);
    dropped_bytes_ += bytes;
  }
}

}  // namespace sluice
