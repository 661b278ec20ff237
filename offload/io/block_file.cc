#include "offload/io/block_file.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include "core/errno_text.h"
#include "core/error.h"
#include "core/log.h"
#include "core/units.h"

namespace sluice::offload {
namespace {

[[noreturn]] void throw_open_failure(const std::filesystem::path& path, FileMode mode, int error) {
  if (error == ENOENT || error == ENOTDIR) {
    throw Error(Code::kNotFound, fmt::format("{}: no such file or folder", path.string()), "check the path");
  }
  std::string fix =
      mode == FileMode::kRead ? "make it readable for this user" : "name another folder with --disk-dir";
  if (error == EMFILE || error == ENFILE) fix = "raise the limit of open files (ulimit -n)";
  throw Error(
      Code::kIo,
      fmt::format("{}: cannot open it for {}: {} (errno {})", path.string(),
                  mode == FileMode::kRead ? "reading" : "reading and writing", errno_text(error), error),
      fix);
}

/// Whether direct transfers aligned to kPageAlign work on `fd`. Some file systems accept O_DIRECT in open()
/// and then ask for larger blocks, or none; kernels since 6.1 say so beforehand.
bool direct_fits(int fd) {
#ifdef STATX_DIOALIGN
  struct statx stat = {};
  if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stat) == 0 && (stat.stx_mask & STATX_DIOALIGN) != 0) {
    return stat.stx_dio_offset_align != 0 && kPageAlign % stat.stx_dio_offset_align == 0 &&
           kPageAlign % std::max<std::int64_t>(stat.stx_dio_mem_align, 1) == 0;
  }
#endif
  (void)fd;
  return true;
}

UniqueFd open_file(const std::filesystem::path& path, int flags) {
  while (true) {
    const int fd = ::open(path.c_str(), flags | O_CLOEXEC, 0600);
    if (fd >= 0 || errno != EINTR) return UniqueFd(fd);
  }
}

}  // namespace

UniqueFd::UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

UniqueFd& UniqueFd::operator=(UniqueFd&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

UniqueFd::~UniqueFd() {
  if (fd_ >= 0 && ::close(fd_) != 0) log_warn("closing file descriptor {}: {}", fd_, errno_text(errno));
}

BlockFile::BlockFile(const std::filesystem::path& path, FileMode mode, bool allow_direct) : path_(path) {
  const int flags = mode == FileMode::kRead ? O_RDONLY : O_RDWR | O_CREAT;
  if (allow_direct) {
    fd_ = open_file(path, flags | O_DIRECT);
    if (!fd_ && errno != EINVAL) throw_open_failure(path, mode, errno);
    direct_ = fd_ && direct_fits(fd_.get());
  }
  if (!direct_) {
    fd_ = open_file(path, flags);
    if (!fd_) throw_open_failure(path, mode, errno);
    // No read-ahead: it would bring in pages that drop_behind does not know of.
    posix_fadvise(fd_.get(), 0, 0, POSIX_FADV_RANDOM);
  }
  struct stat stat = {};
  SLUICE_CHECK(fstat(fd_.get(), &stat) == 0 && !S_ISDIR(stat.st_mode), Code::kIo,
               fmt::format("{}: is a folder, not a file", path.string()), "name a file");
}

BlockFile::~BlockFile() {
  // Large folios that straddled the edges of dropped ranges are still in the page cache.
  if (fd_ && !direct_) posix_fadvise(fd_.get(), 0, 0, POSIX_FADV_DONTNEED);
}

std::int64_t BlockFile::size() const {
  struct stat stat = {};
  SLUICE_CHECK(fstat(fd(), &stat) == 0, Code::kIo,
               fmt::format("{}: cannot ask for its size: {}", path_.string(), errno_text(errno)),
               "check the disk");
  return stat.st_size;
}

Status BlockFile::drop_behind(IoOp op, std::int64_t offset, std::int64_t bytes) const {
  if (direct_ || bytes == 0) return {};
  constexpr unsigned kWriteAndWait =
      SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
  if (op == IoOp::kWrite && sync_file_range(fd(), offset, bytes, kWriteAndWait) != 0) {
    // Some file systems do not know ranges; then the whole file is written.
    const int error = errno;
    const bool unknown = error == ENOSYS || error == EINVAL || error == EOPNOTSUPP || error == ESPIPE;
    if (!unknown || (fdatasync(fd()) != 0 && errno != EINVAL)) {
      return {Code::kIo,
              fmt::format("{}: write of {} bytes at offset {} failed: {}; free space there or name another "
                          "folder with --disk-dir",
                          path_.string(), bytes, offset, errno_text(unknown ? errno : error))};
    }
  }
  posix_fadvise(fd(), offset, bytes, POSIX_FADV_DONTNEED);  // advice; the destructor gives it once more
  return {};
}

const BlockFile& BlockFiles::open(const std::filesystem::path& path, FileMode mode) {
  static std::atomic<bool> warned{false};
  const BlockFile& file = files_.emplace_back(path, mode, allow_direct_);
  if (allow_direct_ && !file.direct() && !warned.exchange(true)) {
    log_warn("{}: its file system refuses direct I/O; using buffered I/O and dropping pages behind it",
             path.string());
  }
  return file;
}

std::string BlockFiles::description() const {
  const auto buffered =
      std::count_if(files_.begin(), files_.end(), [](const BlockFile& f) { return !f.direct(); });
  if (buffered == 0) return allow_direct_ ? "O_DIRECT" : "buffered";
  if (buffered == static_cast<std::ptrdiff_t>(files_.size())) return "buffered";
  return fmt::format("O_DIRECT, {} of {} files buffered", buffered, files_.size());
}

}  // namespace sluice::offload
