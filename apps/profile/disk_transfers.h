// How fast a disk moves a file as the engine moves it: what a profile's rates of the disk are measured by,
// and what tells later whether the disk still has them. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "core/units.h"
#include "offload/io/block_io.h"

namespace sluice::apps {

/// The engine's own transfers: the simulation takes their row of a profile.
inline constexpr offload::BlockIoOptions kEngineIo;
/// What they move through.
inline constexpr std::int64_t kDiskMemoryBytes = 256_MiB;

/// The folder that --disk-dir names; of "", the temporary one.
std::filesystem::path disk_folder(const std::string& disk_dir);

class DiskTransfers {
 public:
  /// Opens the file, or makes it. `memory` outlives this, and of more than kDiskMemoryBytes the first are
  /// used. Throws Error{kIo}.
  DiskTransfers(const std::filesystem::path& file, const offload::BlockIoOptions& io,
                std::span<std::byte> memory);

  /// Bytes/s of moving the first `bytes` of the file once. Throws Error{kIo}.
  double bytes_per_sec(offload::IoOp op, std::int64_t bytes);

 private:
  const std::span<std::byte> memory_;
  const std::unique_ptr<offload::BlockIo> io_;
  offload::FileId file_;
};

}  // namespace sluice::apps
