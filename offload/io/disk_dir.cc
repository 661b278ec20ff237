#include "offload/io/disk_dir.h"

#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <string>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <system_error>
#include <unistd.h>

#include "core/errno_text.h"
#include "core/error.h"
#include "core/log.h"

namespace sluice::offload {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "sluice-";

fs::path resolve(const fs::path& asked) {
  std::error_code error;
  if (asked.empty()) {
    const fs::path found = fs::temp_directory_path(error);
    SLUICE_CHECK(!error, Code::kIo, fmt::format("the system's temporary folder: {}", error.message()),
                 "name a folder with --disk-dir");
    return found;
  }
  if (!fs::exists(asked, error)) fs::create_directory(asked, error);
  SLUICE_CHECK(fs::is_directory(asked, error), Code::kIo,
               fmt::format("{}: is not a folder and cannot be made one{}{}", asked.string(),
                           error ? ": " : "", error ? error.message() : ""),
               "name an existing folder with --disk-dir");
  return fs::absolute(asked);
}

void warn_if_in_memory(const fs::path& folder) {
  if (lies_in_memory(folder)) {
    log_warn(
        "{} lies in memory, not on a disk: the disk tier will take RAM; name another folder with --disk-dir",
        folder.string());
  }
}

/// The lock of a run's folder; empty if another run holds it or it cannot be opened.
UniqueFd try_lock(const fs::path& folder) {
  UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (fd && flock(fd.get(), LOCK_EX | LOCK_NB) == 0) return fd;
  return UniqueFd();
}

/// The process that "sluice-<pid>-XXXXXX" belongs to, or 0 for any other name.
pid_t owner_of(const std::string& name) {
  if (!name.starts_with(kPrefix)) return 0;
  pid_t pid = 0;
  const auto [end, error] = std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), pid);
  return error == std::errc{} && end != name.data() + name.size() && *end == '-' ? pid : 0;
}

}  // namespace

bool lies_in_memory(const fs::path& folder) {
  struct statfs stat = {};
  return statfs(folder.c_str(), &stat) == 0 && (stat.f_type == TMPFS_MAGIC || stat.f_type == RAMFS_MAGIC);
}

DiskDir::DiskDir(const fs::path& asked) {
  const fs::path parent = resolve(asked);
  warn_if_in_memory(parent);
  remove_leftovers(parent);
  std::string name = (parent / fmt::format("{}{}-XXXXXX", kPrefix, getpid())).string();
  SLUICE_CHECK(mkdtemp(name.data()) != nullptr, Code::kIo,
               fmt::format("{}: cannot make a folder in it: {}", parent.string(), errno_text(errno)),
               "name a folder that this user may write with --disk-dir");
  path_ = name;
  lock_ = try_lock(path_);
  // Not fatal: without locks (some network file systems) leftovers are merely not recognised.
  if (!lock_) log_debug("{}: cannot be locked: {}", path_.string(), errno_text(errno));
}

DiskDir::~DiskDir() {
  std::error_code error;
  fs::remove_all(path_, error);
  if (error) log_warn("{}: cannot be removed: {}; remove it by hand", path_.string(), error.message());
}

void DiskDir::remove_leftovers(const fs::path& parent) {
  std::error_code error;
  for (fs::directory_iterator it(parent, error), end; !error && it != end; it.increment(error)) {
    const pid_t owner = owner_of(it->path().filename().string());
    // Both must say that the run is dead: the lock alone is free for a moment while a folder is made, and the
    // process alone may live on another machine or in another container.
    if (owner == 0 || kill(owner, 0) == 0 || errno != ESRCH) continue;
    struct stat stat = {};
    if (lstat(it->path().c_str(), &stat) != 0 || !S_ISDIR(stat.st_mode) || stat.st_uid != geteuid()) continue;
    const UniqueFd lock = try_lock(it->path());
    if (!lock) continue;
    std::error_code ignored;
    fs::remove_all(it->path(), ignored);
    if (!ignored) {
      ++removed_leftovers_;
      log_warn("{}: removed, a leftover of a killed run (process {})", it->path().string(), owner);
    }
  }
}

}  // namespace sluice::offload
