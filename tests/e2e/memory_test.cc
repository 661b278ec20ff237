// Sluice takes the memory it was given and no more: not in its own size, and not in the page cache behind its
// back.
#include <chrono>
#include <fcntl.h>
#include <filesystem>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <spawn.h>

#include "core/units.h"
#include "tests/support/paths.h"

extern char** environ;

namespace sluice {
namespace {

/// Bytes of a file that are in the page cache.
std::int64_t cached_bytes(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;  // removed in the meantime
  std::error_code gone;
  const auto size = static_cast<std::int64_t>(std::filesystem::file_size(path, gone));
  std::int64_t cached = 0;
  if (!gone && size > 0) {
    void* map = ::mmap(nullptr, static_cast<std::size_t>(size), PROT_READ, MAP_SHARED, fd, 0);
    if (map != MAP_FAILED) {
      std::vector<unsigned char> pages(static_cast<std::size_t>(div_up(size, kPageAlign)));
      if (::mincore(map, static_cast<std::size_t>(size), pages.data()) == 0) {
        for (const unsigned char page : pages) cached += (page & 1) != 0 ? kPageAlign : 0;
      }
      ::munmap(map, static_cast<std::size_t>(size));
    }
  }
  ::close(fd);
  return cached;
}

// The disk holds 2.6 GB of weights and part of the KV. Peak resident size at most the two budgets and 300 MB.
TEST(Memory, Opt13bStaysWithinOneAndOneGibibyte) {
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / fmt::format("sluice-memory-{}", ::getpid());
  std::filesystem::create_directories(folder);
  const std::string binary = testing::sluice_binary().string();
  const std::string disk = folder.string();
  const char* const arguments[] = {binary.c_str(),
                                   "generate",
                                   "--model",
                                   "random:opt-1.3b",
                                   "--gpu-memory",
                                   "1GiB",
                                   "--cpu-memory",
                                   "1GiB",
                                   "--disk-dir",
                                   disk.c_str(),
                                   "--prompt-len",
                                   "32",
                                   "--gen-len",
                                   "3",
                                   "--num-prompts",
                                   "8",
                                   "--percent",
                                   "10",
                                   "10",
                                   "0",
                                   "50",
                                   "100",
                                   "0",
                                   "--gpu-batch-size",
                                   "4",
                                   "--num-gpu-batches",
                                   "2",
                                   "--quiet",
                                   nullptr};
  pid_t child = 0;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  ASSERT_EQ(
      ::posix_spawn(&child, binary.c_str(), &actions, nullptr, const_cast<char* const*>(arguments), environ),
      0);
  posix_spawn_file_actions_destroy(&actions);

  std::int64_t most_cached = 0;
  std::int64_t files_seen = 0;
  int status = 0;
  rusage usage{};
  while (::wait4(child, &status, WNOHANG, &usage) == 0) {
    std::error_code gone;
    std::int64_t cached = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder, gone)) {
      if (entry.is_regular_file(gone) && entry.file_size(gone) > 1_MiB) {
        ++files_seen;
        cached += cached_bytes(entry.path());
      }
    }
    most_cached = std::max(most_cached, cached);
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
  std::filesystem::remove_all(folder);
  ASSERT_TRUE(WIFEXITED(status));
  ASSERT_EQ(WEXITSTATUS(status), 0);
  EXPECT_GT(files_seen, 0) << "nothing was on disk";
  EXPECT_EQ(most_cached, 0) << "bytes of the disk tier in the page cache";
  EXPECT_LE(usage.ru_maxrss * 1024, 2_GiB + 300'000'000);
  std::cout << "peak resident size " << format_bytes(usage.ru_maxrss * 1024) << ", most cached "
            << format_bytes(most_cached) << "\n";
}

}  // namespace
}  // namespace sluice
