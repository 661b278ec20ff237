#include <algorithm>
#include <array>
#include <filesystem>

#include "apps/profile/parts.h"
#include "apps/raw_disk.h"
#include "core/log.h"
#include "core/units.h"
#include "offload/io/block_io.h"
#include "offload/io/disk_dir.h"
#include "offload/memory/usable_memory.h"

namespace sluice::apps {
namespace {

constexpr std::int64_t kMemory = 256_MiB;

// The simulation takes the row of the engine's own transfers.
constexpr offload::BlockIoOptions kEngineIo;
static_assert(kEngineIo.queue_depth == policy::kDiskQueueDepth);
static_assert(static_cast<double>(kEngineIo.piece_bytes) == policy::kDiskPieceKib * 1024);

struct DiskRow {
  int depth;
  std::int64_t piece_bytes;
  std::int64_t part;  ///< of the file that a round moves: one in so many
};
/// What the engine does over the whole file; the others tell what depth and piece are worth. It comes first,
/// so that all of the file is written when the others, and then the reads, begin.
constexpr std::array kDiskRows = {DiskRow{kEngineIo.queue_depth, kEngineIo.piece_bytes, 1},
                                  DiskRow{1, 1_MiB, 8}, DiskRow{8, 1_MiB, 8}, DiskRow{8, 4_MiB, 8}};

}  // namespace

void measure_disk(const Rig& rig, policy::HardwareProfile& profile) {
  const std::filesystem::path folder = rig.options.disk_dir.empty()
                                           ? std::filesystem::temp_directory_path()
                                           : std::filesystem::path(rig.options.disk_dir);
  const std::int64_t free = offload::usable_disk_bytes(folder);
  profile.memory.disk_gib = 0.9 * gib(free);
  const std::int64_t bytes = std::min(rig.options.disk_bytes, free / 4) / 64_MiB * 64_MiB;
  if (bytes == 0) {
    if (rig.options.disk_bytes > 0) log_warn("{}: too little room to measure the disk", folder.string());
    return;
  }
  const auto memory = rig.host.first(std::min<std::size_t>(rig.host.size(), kMemory));
  const offload::DiskDir dir(folder);
  const std::filesystem::path path = dir.path() / "profile";
  const auto measure = [&](const DiskRow& row, offload::IoOp op) {
    const auto io = offload::make_block_io({.queue_depth = row.depth, .piece_bytes = row.piece_bytes});
    io->register_memory(memory);
    const offload::FileId file = io->open(path, offload::FileMode::kReadWriteCreate);
    return rig.measure([&] { return block_io_bytes_per_sec(*io, file, op, bytes / row.part, memory); });
  };
  const auto table = [&](offload::IoOp op) {
    std::vector<policy::DiskRate> rates;
    for (const DiskRow& row : kDiskRows) {
      const Measured rate = measure(row, op);
      rates.push_back(
          {row.depth, static_cast<double>(row.piece_bytes) / 1024, rate.median / 1e9, rate.spread_percent});
    }
    return rates;
  };
  profile.disk.write = table(offload::IoOp::kWrite);
  profile.disk.read = table(offload::IoOp::kRead);
}

}  // namespace sluice::apps
