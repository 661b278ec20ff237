#include "offload/io/scratch_file.h"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include "core/errno_text.h"
#include "core/error.h"
#include "core/log.h"
#include "core/units.h"
#include "offload/io/block_file.h"
#include "offload/memory/usable_memory.h"

namespace sluice::offload {
namespace {

/// Gives the file its size and its space; 0 or the errno. The system call, not posix_fallocate: glibc
/// replaces a missing one by writing every block through the page cache.
int take_space(int fd, const std::filesystem::path& folder, std::int64_t bytes) {
  if (bytes == 0) return 0;
  // Asked first: an allocation that fails half-way has filled the disk for everybody meanwhile.
  if (usable_disk_bytes(folder) < bytes) return ENOSPC;
  int result = 0;
  do {
    result = fallocate(fd, 0, 0, bytes);
  } while (result != 0 && errno == EINTR);
  if (result == 0) return 0;
  if (errno != EOPNOTSUPP && errno != ENOSYS) return errno;
  log_debug("{}: its file system cannot reserve space", folder.string());
  return ftruncate(fd, bytes) == 0 ? 0 : errno;
}

}  // namespace

ScratchFile::ScratchFile(const std::filesystem::path& folder, const std::string& name, std::int64_t bytes)
    : bytes_(align_up(bytes, kPageAlign)) {
  SLUICE_ASSERT(bytes >= 0);
  const std::filesystem::path path = folder / name;
  const UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  SLUICE_CHECK(fd, Code::kIo, fmt::format("{}: cannot make it: {}", path.string(), errno_text(errno)),
               "name a folder that this user may write with --disk-dir");
  const int error = take_space(fd.get(), folder, bytes_);
  if (error == 0) {
    path_ = path;
    return;
  }
  ::unlink(path.c_str());
  if (error != ENOSPC && error != EDQUOT && error != EFBIG) {
    throw Error(
        Code::kIo,
        fmt::format("{}: cannot reserve {}: {}", path.string(), format_bytes(bytes_), errno_text(error)),
        "name another folder with --disk-dir");
  }
  const std::int64_t free = usable_disk_bytes(folder);
  throw Error(
      Code::kIo,
      fmt::format("{}: need {}, {} free on this disk, {} missing: {}", path.string(), format_bytes(bytes_),
                  format_bytes(free), format_bytes(std::max<std::int64_t>(bytes_ - free, 0)),
                  errno_text(error)),
      "free space there, place less on the disk with --percent, or name another folder with --disk-dir");
}

ScratchFile::ScratchFile(ScratchFile&& other) noexcept
    : path_(std::exchange(other.path_, {})), bytes_(std::exchange(other.bytes_, 0)) {}

ScratchFile& ScratchFile::operator=(ScratchFile&& other) noexcept {
  if (this != &other) {
    remove();
    path_ = std::exchange(other.path_, {});
    bytes_ = std::exchange(other.bytes_, 0);
  }
  return *this;
}

ScratchFile::~ScratchFile() { remove(); }

void ScratchFile::remove() noexcept {
  if (path_.empty()) return;
  std::error_code error;
  std::filesystem::remove(path_, error);
  if (error) log_warn("{}: cannot be removed: {}; remove it by hand", path_.string(), error.message());
  path_.clear();
}

}  // namespace sluice::offload
