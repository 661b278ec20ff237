#include "apps/raw_disk.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <fcntl.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "core/errno_text.h"
#include "core/error.h"
#include "core/units.h"
#include "offload/io/block_file.h"

namespace sluice::apps {
namespace {

constexpr std::array kQueueDepths = {1, 2, 4, 8, 16, 32, 64};
constexpr std::array kBlockBytes = {256_KiB, 1_MiB, 2_MiB, 4_MiB, 8_MiB};

}  // namespace

double raw_bytes_per_sec(const std::filesystem::path& path, offload::IoOp op, std::int64_t begin,
                         std::int64_t end, const RawLoop& loop, std::span<std::byte> memory,
                         const kernels::ThreadMaker& make_thread) {
  const auto memory_bytes = static_cast<std::int64_t>(memory.size());
  SLUICE_ASSERT(memory_bytes >= loop.num_threads * loop.block_bytes && memory_bytes % loop.block_bytes == 0);
  const bool reading = op == offload::IoOp::kRead;
  const offload::UniqueFd fd(::open(path.c_str(), (reading ? O_RDONLY : O_RDWR) | O_DIRECT | O_CLOEXEC));
  SLUICE_CHECK(fd, Code::kIo, fmt::format("{}: no direct I/O: {}", path.string(), errno_text(errno)),
               "name a file on a disk with --file");
  std::atomic<std::int64_t> next{begin};
  std::atomic<int> error{0};
  // Each thread has blocks of its own, in turn.
  const std::int64_t turns = memory_bytes / loop.block_bytes / loop.num_threads;
  const auto run = [&](int thread) {
    std::int64_t turn = 0;
    for (std::int64_t at = next.fetch_add(loop.block_bytes); at < end && error == 0;
         at = next.fetch_add(loop.block_bytes)) {
      const auto bytes = static_cast<std::size_t>(std::min(loop.block_bytes, end - at));
      std::byte* block = memory.data() + (turn++ % turns * loop.num_threads + thread) * loop.block_bytes;
      const ssize_t moved = reading ? pread(fd.get(), block, bytes, at) : pwrite(fd.get(), block, bytes, at);
      if (moved != static_cast<ssize_t>(bytes)) error = moved < 0 ? errno : EIO;
    }
  };
  const auto start = std::chrono::steady_clock::now();
  {
    std::vector<std::jthread> threads;
    threads.reserve(static_cast<std::size_t>(loop.num_threads));
    kernels::ThreadStarter starter("a plain loop over a file", loop.num_threads, make_thread);
    try {
      for (int i = 0; i < loop.num_threads; ++i) threads.push_back(starter.start([&run, i] { run(i); }));
    } catch (...) {
      next = end;  // those that run are joined, and need not go through the file first
      throw;
    }
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  SLUICE_CHECK(error == 0, Code::kIo,
               fmt::format("{}: plain {} of {} blocks failed: {}", path.string(), reading ? "read" : "write",
                           format_bytes(loop.block_bytes), errno_text(error)),
               "look into the kernel's log");
  return static_cast<double>(end - begin) / seconds.count();
}

RawLoop best_raw_loop(const std::filesystem::path& path, offload::IoOp op, std::int64_t probe_bytes,
                      std::span<std::byte> memory) {
  struct Candidate {
    RawLoop loop;
    std::vector<double> rates;
    double median() {
      std::sort(rates.begin(), rates.end());
      return rates[rates.size() / 2];
    }
  };
  std::vector<Candidate> candidates;
  for (const int depth : kQueueDepths) {
    for (const std::int64_t block : kBlockBytes) {
      if (depth * block <= static_cast<std::int64_t>(memory.size()))
        candidates.push_back({{depth, block}, {}});
    }
  }
  // One pass for all, then three more for the best four: a single lucky pass does not win.
  for (int passes = 1; candidates.size() > 1; passes += 2) {
    for (int pass = 0; pass < passes; ++pass) {
      for (Candidate& c : candidates) {
        c.rates.push_back(raw_bytes_per_sec(path, op, 0, probe_bytes, c.loop, memory));
      }
    }
    std::vector<std::pair<double, Candidate>> ranked;
    ranked.reserve(candidates.size());
    for (Candidate& c : candidates) ranked.emplace_back(c.median(), c);
    std::stable_sort(ranked.begin(), ranked.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });
    const std::size_t keep = candidates.size() > 4 ? 4 : 1;
    candidates.clear();
    for (std::size_t i = 0; i < keep; ++i) candidates.push_back(std::move(ranked[i].second));
  }
  return candidates.front().loop;
}

double block_io_bytes_per_sec(offload::BlockIo& io, offload::FileId file, offload::IoOp op,
                              std::int64_t bytes, std::span<std::byte> memory) {
  const std::uint64_t num_buffers = memory.size() / kIoRequestBytes;
  SLUICE_ASSERT(num_buffers > 0);
  std::vector<std::uint64_t> free_buffers;
  for (std::uint64_t i = 0; i < num_buffers; ++i) free_buffers.push_back(i);
  const auto start = std::chrono::steady_clock::now();
  for (std::int64_t at = 0; at < bytes || io.in_flight() > 0;) {
    if (at < bytes && !free_buffers.empty()) {
      const std::uint64_t buffer = free_buffers.back();
      const std::int64_t length = std::min(kIoRequestBytes, bytes - at);
      SLUICE_ASSERT(io.try_submit({op, file, at, memory.data() + buffer * kIoRequestBytes, length, buffer}));
      free_buffers.pop_back();
      at += length;
      continue;
    }
    const auto done = io.wait(std::chrono::steady_clock::time_point::max());
    SLUICE_ASSERT(done.has_value());
    done->status.throw_if_failed();
    free_buffers.push_back(done->tag);
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  return static_cast<double>(bytes) / seconds.count();
}

}  // namespace sluice::apps
