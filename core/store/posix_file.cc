#include "core/store/posix_file.h"

#include <cerrno>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include "core/errno_text.h"
#include "core/error.h"
#include "core/log.h"

namespace sluice::detail {

UniqueFd& UniqueFd::operator=(UniqueFd&& other) noexcept {
  if (this != &other) {
    UniqueFd old(std::exchange(fd_, other.release()));
  }
  return *this;
}
UniqueFd::~UniqueFd() {
  if (fd_ >= 0 && ::close(fd_) != 0) log_warn("close failed: {}", errno_text(errno));
}
int UniqueFd::release() noexcept { return std::exchange(fd_, -1); }

void throw_file_error(const std::filesystem::path& file, const std::string& what, int error_number) {
  std::string fix = "check the disk and the kernel's log";
  Code code = Code::kIo;
  switch (error_number) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      fix = "free space there or choose a folder on another disk; a conversion continues where it stopped";
      break;
    case EACCES:
    case EPERM:
    case EROFS:
      fix = "choose a folder that you may write, or change its rights";
      break;
    case ENOENT:
    case ENOTDIR:
      code = Code::kNotFound;
      fix = "check the path";
      break;
    default:
      break;
  }
  throw Error(code, fmt::format("{}: {}: {}", file.string(), what, errno_text(error_number)), fix);
}

UniqueFd open_file(const std::filesystem::path& file, int flags) {
  UniqueFd fd(::open(file.c_str(), flags | O_CLOEXEC, 0644));
  if (!fd) throw_file_error(file, "cannot be opened", errno);
  return fd;
}

UniqueFd open_direct(const std::filesystem::path& file, int flags, bool& is_direct) {
  UniqueFd fd(::open(file.c_str(), flags | O_CLOEXEC | O_DIRECT, 0644));
  is_direct = static_cast<bool>(fd);
  if (fd) return fd;
  if (errno != EINVAL) throw_file_error(file, "cannot be opened", errno);
  return open_file(file, flags);  // tmpfs and some network file systems refuse O_DIRECT
}

void read_at_least(const UniqueFd& fd, const std::filesystem::path& file, std::int64_t offset,
                   std::span<std::byte> out, std::int64_t least) {
  std::int64_t done = 0;
  while (done < least) {
    const std::size_t wanted = out.size() - static_cast<std::size_t>(done);
    const ssize_t got = ::pread(fd.get(), out.data() + done, wanted, offset + done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      throw_file_error(file, fmt::format("read of {} bytes at offset {}", wanted, offset + done), errno);
    SLUICE_CHECK(got > 0, Code::kCorrupt,
                 fmt::format("{}: ends at offset {}, {} more bytes were expected", file.string(),
                             offset + done, least - done),
                 "the file is truncated: convert or copy it again");
    done += got;
  }
}

void read_at(const UniqueFd& fd, const std::filesystem::path& file, std::int64_t offset,
             std::span<std::byte> out) {
  read_at_least(fd, file, offset, out, static_cast<std::int64_t>(out.size()));
}

void write_at(const UniqueFd& fd, const std::filesystem::path& file, std::int64_t offset,
              std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::pwrite(fd.get(), bytes.data(), bytes.size(), offset);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0)
      throw_file_error(file, fmt::format("write of {} bytes at offset {}", bytes.size(), offset), errno);
    bytes = bytes.subspan(static_cast<std::size_t>(put));
    offset += put;
  }
}

void sync_file(const UniqueFd& fd, const std::filesystem::path& file) {
  if (::fsync(fd.get()) != 0) throw_file_error(file, "fsync", errno);
}

void sync_folder(const std::filesystem::path& folder) {
  const UniqueFd fd = open_file(folder.empty() ? "." : folder, O_RDONLY | O_DIRECTORY);
  // Some network file systems cannot sync a folder and say EINVAL; there is nothing better to do there.
  if (::fsync(fd.get()) != 0 && errno != EINVAL) throw_file_error(folder, "fsync", errno);
}

std::string read_text_file(const std::filesystem::path& file, std::int64_t max_bytes) {
  const UniqueFd fd = open_file(file, O_RDONLY);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) throw_file_error(file, "stat", errno);
  SLUICE_CHECK(info.st_size <= max_bytes, Code::kCorrupt,
               fmt::format("{}: has {} bytes, at most {} are read", file.string(), info.st_size, max_bytes),
               "check that this is the right file");
  std::string text(static_cast<std::size_t>(info.st_size), '\0');
  read_at(fd, file, 0, std::as_writable_bytes(std::span(text)));
  return text;
}

void replace_text_file(const std::filesystem::path& file, std::string_view text) {
  const std::filesystem::path fresh = file.string() + ".new";
  {
    const UniqueFd fd = open_file(fresh, O_WRONLY | O_CREAT | O_TRUNC);
    write_at(fd, fresh, 0, std::as_bytes(std::span(text)));
    sync_file(fd, fresh);
  }
  if (::rename(fresh.c_str(), file.c_str()) != 0) throw_file_error(file, "rename", errno);
  sync_folder(file.parent_path());
}

}  // namespace sluice::detail
