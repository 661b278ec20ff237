#include "apps/raw_disk.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <fcntl.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <vector>

#include "core/error.h"
#include "core/units.h"
#include "offload/io/block_file.h"

namespace sluice::apps {
namespace {

constexpr std::array kQueueDepths = {1, 2, 4, 8, 16, 32};
constexpr std::array kBlockBytes = {256_KiB, 1_MiB, 2_MiB, 4_MiB, 8_MiB};

}  // namespace

double raw_bytes_per_sec(const std::filesystem::path& path, offload::IoOp op, std::int64_t begin,
                         std::int64_t end, const RawLoop& loop, std::span<std::byte> memory) {
  SLUICE_ASSERT(static_cast<std::int64_t>(memory.size()) >= loop.num_threads * loop.block_bytes);
  const bool reading = op == offload::IoOp::kRead;
  const offload::UniqueFd fd(::open(path.c_str(), (reading ? O_RDONLY : O_RDWR) | O_DIRECT | O_CLOEXEC));
  SLUICE_CHECK(fd, Code::kIo,
               fmt::format("{}: no direct I/O: {}", path.string(), std::system_category().message(errno)),
               "name a file on a disk with --file");
  std::atomic<std::int64_t> next{begin};
  std::atomic<int> error{0};
  const auto run = [&](std::byte* block) {
    for (std::int64_t at = next.fetch_add(loop.block_bytes); at < end && error == 0;
         at = next.fetch_add(loop.block_bytes)) {
      const auto bytes = static_cast<std::size_t>(std::min(loop.block_bytes, end - at));
      const ssize_t moved = reading ? pread(fd.get(), block, bytes, at) : pwrite(fd.get(), block, bytes, at);
      if (moved != static_cast<ssize_t>(bytes)) error = moved < 0 ? errno : EIO;
    }
  };
  const auto start = std::chrono::steady_clock::now();
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < loop.num_threads; ++i)
      threads.emplace_back(run, memory.data() + i * loop.block_bytes);
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  SLUICE_CHECK(error == 0, Code::kIo,
               fmt::format("{}: plain {} of {} blocks failed: {}", path.string(), reading ? "read" : "write",
                           format_bytes(loop.block_bytes), std::system_category().message(error)),
               "look into the kernel's log");
  return static_cast<double>(end - begin) / seconds.count();
}

RawLoop best_raw_loop(const std::filesystem::path& path, offload::IoOp op, std::int64_t probe_bytes,
                      std::span<std::byte> memory) {
  RawLoop best;
  double best_rate = 0;
  for (const int depth : kQueueDepths) {
    for (const std::int64_t block : kBlockBytes) {
      const RawLoop loop{depth, block};
      double rate = 0;
      for (int pass = 0; pass < 2; ++pass) {
        rate = std::max(rate, raw_bytes_per_sec(path, op, 0, probe_bytes, loop, memory));
      }
      if (rate > best_rate) {
        best_rate = rate;
        best = loop;
      }
    }
  }
  return best;
}

std::int64_t raw_loop_memory_bytes() {
  return *std::max_element(kQueueDepths.begin(), kQueueDepths.end()) *
         *std::max_element(kBlockBytes.begin(), kBlockBytes.end());
}

}  // namespace sluice::apps
