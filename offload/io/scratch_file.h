// A file of a run, with all of its space taken beforehand, so that the disk cannot fill up in the run.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace sluice::offload {

class ScratchFile {
 public:
  /// Creates `folder`/`name`, which must not exist, of `bytes` rounded up to kPageAlign. Its bytes read as 0.
  /// Where the file system cannot reserve space, the free space is checked instead. Throws Error{kIo} with
  /// the bytes needed, free and missing when they do not fit; then nothing is left behind.
  ScratchFile(const std::filesystem::path& folder, const std::string& name, std::int64_t bytes);
  ScratchFile(ScratchFile&& other) noexcept;
  ScratchFile& operator=(ScratchFile&& other) noexcept;
  /// Removes the file.
  ~ScratchFile();

  const std::filesystem::path& path() const { return path_; }
  std::int64_t bytes() const { return bytes_; }

 private:
  void remove() noexcept;

  std::filesystem::path path_;  // empty: moved from
  std::int64_t bytes_ = 0;
};

}  // namespace sluice::offload
