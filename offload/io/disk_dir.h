// The folder of the disk tier: what --disk-dir names, or the system's temporary folder. Each run works in a
// private folder of its own inside it, "sluice-<pid>-XXXXXX", that disappears with the object. A folder whose
// run was killed is recognised by its lock, which died with the run, and removed by the next run.
#pragma once

#include <cstdint>
#include <filesystem>

#include "offload/io/block_file.h"

namespace sluice::offload {

/// Whether files there take RAM (tmpfs, ramfs).
bool lies_in_memory(const std::filesystem::path& folder);

class DiskDir {
 public:
  /// `asked` is --disk-dir; empty: the system's temporary folder. A missing last folder is made. Warns if the
  /// folder lies in memory. Throws Error{kIo} with the remedy if it cannot be made or written.
  explicit DiskDir(const std::filesystem::path& asked);
  DiskDir(const DiskDir&) = delete;
  DiskDir& operator=(const DiskDir&) = delete;
  /// Removes the private folder with all that is in it.
  ~DiskDir();

  const std::filesystem::path& path() const { return path_; }  ///< the private folder, mode 0700
  std::int64_t removed_leftovers() const { return removed_leftovers_; }

 private:
  void remove_leftovers(const std::filesystem::path& parent);

  std::filesystem::path path_;
  UniqueFd lock_;  // held on the private folder as long as the run lives
  std::int64_t removed_leftovers_ = 0;
};

}  // namespace sluice::offload
