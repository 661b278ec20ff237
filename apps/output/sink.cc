#include "apps/output/sink.h"

#include <cerrno>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/errno_text.h"
#include "core/error.h"
#include "core/log.h"
#include "core/store/posix_file.h"

namespace sluice::apps {
namespace {

/// Writes all of `text`; returns 0 or the errno of the failure.
int write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0) {
      if (errno == EINTR) continue;
      return errno;
    }
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  return 0;
}

class StdoutSink final : public Sink {
 public:
  void write(std::string_view text) override {
    const int error = write_all(STDOUT_FILENO, text);
    SLUICE_CHECK(error == 0, Code::kIo, fmt::format("writing standard output failed: {}", errno_text(error)),
                 error == EPIPE ? "its reader went away; use --output FILE to keep every result"
                                : "use --output FILE on a disk with free space");
  }
  void finish() override {}
};

class FileSink final : public Sink {
 public:
  FileSink(detail::UniqueFd fd, std::filesystem::path path, std::int64_t bytes, bool is_regular)
      : fd_(std::move(fd)), path_(std::move(path)), bytes_(bytes), is_regular_(is_regular) {}

  void write(std::string_view text) override {
    const int error = write_all(fd_.get(), text);
    if (error != 0) {
      // Half a line would be taken for a torn one and dropped by --resume; without it the file is whole.
      if (is_regular_ && ftruncate(fd_.get(), bytes_) != 0) {
        log_warn("{}: the unfinished last line could not be cut off: {}", path_.string(), errno_text(errno));
      }
      fail("writing", error);
    }
    bytes_ += static_cast<std::int64_t>(text.size());
  }

  void finish() override {
    if (is_regular_ && fsync(fd_.get()) != 0) fail("syncing", errno);
  }

 private:
  [[noreturn]] void fail(std::string_view what, int error) const {
    throw Error(
        Code::kIo,
        fmt::format("{} {} failed at byte {}: {}", what, path_.string(), bytes_, errno_text(error)),
        is_regular_
            ? "make room or mend the cause and run the same command with --resume: what was written stays"
            : "check the device");
  }

  detail::UniqueFd fd_;
  const std::filesystem::path path_;
  std::int64_t bytes_;
  const bool is_regular_;
};

}  // namespace

bool has_content(const std::filesystem::path& path) {
  std::error_code error;
  const auto bytes = std::filesystem::file_size(path, error);
  return !error && bytes > 0;
}

std::unique_ptr<Sink> make_stdout_sink() { return std::make_unique<StdoutSink>(); }

std::unique_ptr<Sink> make_file_sink(const std::filesystem::path& path, std::int64_t keep_bytes) {
  detail::UniqueFd fd = detail::open_file(path, O_WRONLY | O_CREAT | O_APPEND);
  struct stat info = {};
  if (fstat(fd.get(), &info) != 0) detail::throw_file_error(path, "fstat", errno);
  const bool is_regular = S_ISREG(info.st_mode);
  if (is_regular && ftruncate(fd.get(), keep_bytes) != 0) detail::throw_file_error(path, "truncate", errno);
  return std::make_unique<FileSink>(std::move(fd), path, keep_bytes, is_regular);
}

}  // namespace sluice::apps
