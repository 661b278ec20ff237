// The yardstick of `sluice bench io`: plain loops of large O_DIRECT transfers, one per thread, without
// anything of block I/O in them. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

#include "offload/io/block_io.h"

namespace sluice::apps {

/// How a plain loop moves a file.
struct RawLoop {
  int num_threads = 1;           ///< transfers in flight
  std::int64_t block_bytes = 0;  ///< of one transfer
};

/// Bytes/s of moving [begin, end) of `path` once. `memory` is aligned to kPageAlign and holds num_threads
/// blocks; writes write what is in it. Throws Error{kIo}.
double raw_bytes_per_sec(const std::filesystem::path& path, offload::IoOp op, std::int64_t begin,
                         std::int64_t end, const RawLoop& loop, std::span<std::byte> memory);

/// The fastest of several queue depths and block sizes on the first `probe_bytes` of the file, best of two
/// passes each.
RawLoop best_raw_loop(const std::filesystem::path& path, offload::IoOp op, std::int64_t probe_bytes,
                      std::span<std::byte> memory);

/// Memory that best_raw_loop's largest candidate needs.
std::int64_t raw_loop_memory_bytes();

}  // namespace sluice::apps
