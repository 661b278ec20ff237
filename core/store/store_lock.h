// Keeps two processes from making the same store at once: an exclusive flock on `<store>.lock`, which
// vanishes with its holder, however that ends. Move-only; belongs to one thread.
#pragma once

#include <filesystem>
#include <optional>

#include "core/store/posix_file.h"

namespace sluice {

class StoreLock {
 public:
  /// Empty if another process holds it. Makes the parent folder. Throws Error{kIo} where that is not allowed.
  static std::optional<StoreLock> try_acquire(const std::filesystem::path& store);
  /// Waits for it.
  static StoreLock acquire(const std::filesystem::path& store);

  StoreLock(StoreLock&&) noexcept = default;
  StoreLock& operator=(StoreLock&&) = delete;
  /// Removes the lock file.
  ~StoreLock();

  const std::filesystem::path& store() const { return store_; }

 private:
  StoreLock(std::filesystem::path store, detail::UniqueFd fd)
      : store_(std::move(store)), fd_(std::move(fd)) {}
  static std::optional<StoreLock> lock(const std::filesystem::path& store, int flock_operation);

  std::filesystem::path store_;
  detail::UniqueFd fd_;
};

/// `path` without a trailing slash, so that names can be put beside it.
std::filesystem::path store_folder_name(const std::filesystem::path& path);

}  // namespace sluice
