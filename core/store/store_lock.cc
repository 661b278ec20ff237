#include "core/store/store_lock.h"

#include <cerrno>
#include <fcntl.h>
#include <string>
#include <sys/file.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

#include "core/error.h"

namespace sluice {
namespace {
std::filesystem::path lock_file(const std::filesystem::path& store) { return store.string() + ".lock"; }
}  // namespace

std::filesystem::path store_folder_name(const std::filesystem::path& path) {
  const std::filesystem::path normal = path.lexically_normal();
  const std::filesystem::path named = normal.has_filename() ? normal : normal.parent_path();
  SLUICE_CHECK(named.has_filename() && named.filename() != "." && named.filename() != "..",
               Code::kInvalidArgument, fmt::format("'{}' does not name a store", path.string()),
               "give the store a name of its own");
  return named;
}

std::optional<StoreLock> StoreLock::lock(const std::filesystem::path& path, int flock_operation) {
  const std::filesystem::path store = store_folder_name(path);
  if (store.has_parent_path()) {
    std::error_code problem;
    std::filesystem::create_directories(store.parent_path(), problem);
    if (problem) detail::throw_file_error(store.parent_path(), "cannot be made", problem.value());
  }
  const std::filesystem::path file = lock_file(store);
  while (true) {
    detail::UniqueFd fd = detail::open_file(file, O_RDWR | O_CREAT);
    int result = 0;
    do {
      result = ::flock(fd.get(), flock_operation);
    } while (result != 0 && errno == EINTR);
    if (result != 0 && errno == EWOULDBLOCK) return std::nullopt;
    if (result != 0) detail::throw_file_error(file, "cannot be locked", errno);
    // The holder before us removes the file; what we locked may be a name that no longer exists.
    struct stat ours {};
    struct stat named {};
    if (::fstat(fd.get(), &ours) == 0 && ::stat(file.c_str(), &named) == 0 && ours.st_ino == named.st_ino &&
        ours.st_dev == named.st_dev) {
      return StoreLock(store, std::move(fd));
    }
  }
}

std::optional<StoreLock> StoreLock::try_acquire(const std::filesystem::path& store) {
  return lock(store, LOCK_EX | LOCK_NB);
}
StoreLock StoreLock::acquire(const std::filesystem::path& store) { return *lock(store, LOCK_EX); }

StoreLock::~StoreLock() {
  if (!fd_) return;  // moved from
  ::unlink(
      lock_file(store_).c_str());  // while the lock is held; failure leaves an empty file, which is harmless
}

}  // namespace sluice
