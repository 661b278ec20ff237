#include <cerrno>
#include <cstring>
#include <sys/mman.h>
#include <unistd.h>

#include <fmt/format.h>

#include "core/error.h"
#include "tests/fuzz/fuzz.h"

namespace sluice::fuzz {

InputFile::InputFile() : fd_(memfd_create("fuzz_input", MFD_CLOEXEC)) {
  SLUICE_CHECK(fd_ >= 0, Code::kIo, fmt::format("memfd_create: {}", std::strerror(errno)), "");
  path_ = fmt::format("/proc/self/fd/{}", fd_);
}

InputFile::~InputFile() { close(fd_); }

const std::filesystem::path& InputFile::write(std::span<const std::uint8_t> bytes) {
  SLUICE_CHECK(ftruncate(fd_, 0) == 0, Code::kIo, fmt::format("ftruncate: {}", std::strerror(errno)), "");
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t n = pwrite(fd_, bytes.data() + done, bytes.size() - done, static_cast<off_t>(done));
    SLUICE_CHECK(n > 0, Code::kIo, fmt::format("pwrite: {}", std::strerror(errno)), "");
    done += static_cast<std::size_t>(n);
  }
  return path_;
}

}  // namespace sluice::fuzz
