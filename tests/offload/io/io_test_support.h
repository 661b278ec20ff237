// What the tests of block I/O share: aligned buffers, files, and the random-request property. Not
// thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/units.h"
#include "offload/io/block_io.h"
#include "tests/support/error_of.h"

namespace sluice::offload::io_test {

inline constexpr auto kNever = std::chrono::steady_clock::time_point::max();

using sluice::testing::error_of;

/// Memory that O_DIRECT takes.
class Buffer {
 public:
  explicit Buffer(std::int64_t bytes, std::byte fill = std::byte{0});
  std::span<std::byte> span() { return {data_.get(), static_cast<std::size_t>(bytes_)}; }
  std::byte* data() { return data_.get(); }
  std::int64_t bytes() const { return bytes_; }

 private:
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  std::int64_t bytes_;
  std::unique_ptr<std::byte, Free> data_;
};

class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

std::vector<std::byte> random_bytes(std::int64_t bytes, std::uint64_t seed);
void write_plainly(const std::filesystem::path& path, std::span<const std::byte> content);
std::vector<std::byte> read_plainly(const std::filesystem::path& path);

/// Submits one request, waits for it and returns its completion.
IoCompletion run_one(BlockIo& io, const IoRequest& request);

/// Runs `num_requests` random reads and writes, many at a time, on `file` and on `model`, a copy of its
/// content; every read must give what the copy holds. Requests in flight never overlap a write.
void run_random_requests(BlockIo& io, FileId file, std::vector<std::byte>& model, std::uint64_t seed,
                         int num_requests);

}  // namespace sluice::offload::io_test
