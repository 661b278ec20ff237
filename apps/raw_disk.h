// How fast a file moves: by plain loops of large O_DIRECT transfers, one per thread, without anything of
// block I/O in them (the yardstick of `sluice bench io` and `bench generate`), and by block I/O in requests
// as the engine makes them (what a hardware profile counts with). Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

#include "core/units.h"
#include "kernels/device/cpu/thread_starter.h"
#include "offload/io/block_io.h"

namespace sluice::apps {

/// How a plain loop moves a file.
struct RawLoop {
  int num_threads = 1;           ///< transfers in flight
  std::int64_t block_bytes = 0;  ///< of one transfer
};

/// Bytes/s of moving [begin, end) of `path` once. Each thread's blocks land one after another in `memory`,
/// over and over: where the disk is virtual, the host copies, and a loop that lands in one warm block would
/// measure the cache of the processor. `memory` is aligned to kPageAlign and holds a whole number of blocks,
/// num_threads at least; writes write what is in it. An empty `make_thread` asks the system for threads.
/// Throws Error{kIo}, and {kOutOfMemory} if a thread does not start.
double raw_bytes_per_sec(const std::filesystem::path& path, offload::IoOp op, std::int64_t begin,
                         std::int64_t end, const RawLoop& loop, std::span<std::byte> memory,
                         const kernels::ThreadMaker& make_thread = {});

/// The fastest of several queue depths and block sizes on the first `probe_bytes` of the file; `memory`
/// bounds their product.
RawLoop best_raw_loop(const std::filesystem::path& path, offload::IoOp op, std::int64_t probe_bytes,
                      std::span<std::byte> memory);

/// Of one request of block I/O: the piece in which the engine moves weights
/// (policy::DeviceTraits::weight_piece_bytes).
inline constexpr std::int64_t kIoRequestBytes = 32_MiB;

/// Bytes/s of moving the first `bytes` of `file` once by block I/O. As many requests are under way as
/// `memory` holds, one at least; it is aligned to kPageAlign, and writes write what is in it. Throws
/// Error{kIo}.
double block_io_bytes_per_sec(offload::BlockIo& io, offload::FileId file, offload::IoOp op,
                              std::int64_t bytes, std::span<std::byte> memory);

}  // namespace sluice::apps
