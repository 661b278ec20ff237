// Files as the store needs them: whole transfers at an offset, durability, and failures that name file and
// offset. Thread-safe; one UniqueFd has one owner.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace sluice::detail {

class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept;
  ~UniqueFd();
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release() noexcept;

 private:
  int fd_ = -1;
};

/// Throws Error{kIo} "<file>: <what>: <reason>" with a remedy for full disks and missing rights.
[[noreturn]] void throw_file_error(const std::filesystem::path& file, const std::string& what,
                                   int error_number);

/// open(2) with O_CLOEXEC; files are created with mode 0644. Throws Error{kIo}, {kNotFound} if it does not
/// exist.
UniqueFd open_file(const std::filesystem::path& file, int flags);
/// The same with O_DIRECT where the file system takes it; `is_direct` says whether it did.
UniqueFd open_direct(const std::filesystem::path& file, int flags, bool& is_direct);

/// Resumes short transfers and EINTR. A read past the end throws Error{kCorrupt} naming file and offset.
void read_at(const UniqueFd& fd, const std::filesystem::path& file, std::int64_t offset,
             std::span<std::byte> out);
/// The same for memory of whole pages over the end of a file, as O_DIRECT reads it: only the first `least`
/// bytes must be there.
void read_at_least(const UniqueFd& fd, const std::filesystem::path& file, std::int64_t offset,
                   std::span<std::byte> out, std::int64_t least);
void write_at(const UniqueFd& fd, const std::filesystem::path& file, std::int64_t offset,
              std::span<const std::byte> bytes);

void sync_file(const UniqueFd& fd, const std::filesystem::path& file);
/// Makes creations, removals and renames inside `folder` durable.
void sync_folder(const std::filesystem::path& folder);

/// Throws Error{kCorrupt} if the file is longer than `max_bytes`.
std::string read_text_file(const std::filesystem::path& file, std::int64_t max_bytes);
/// Writes `<file>.new`, syncs and renames it, so that `file` is either the old text or the new one.
void replace_text_file(const std::filesystem::path& file, std::string_view text);

}  // namespace sluice::detail
