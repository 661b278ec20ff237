#include <algorithm>
#include <array>
#include <filesystem>

#include "apps/profile/disk_transfers.h"
#include "apps/profile/parts.h"
#include "core/log.h"
#include "core/units.h"
#include "offload/io/disk_dir.h"
#include "offload/memory/usable_memory.h"

namespace sluice::apps {
namespace {

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
  const std::filesystem::path folder = disk_folder(rig.options.disk_dir);
  const std::int64_t free = offload::usable_disk_bytes(folder);
  profile.memory.disk_gib = 0.9 * gib(free);
  const std::int64_t bytes = std::min(rig.options.disk_bytes, free / 4) / 64_MiB * 64_MiB;
  if (bytes == 0) {
    if (rig.options.disk_bytes > 0) log_warn("{}: too little room to measure the disk", folder.string());
    return;
  }
  const offload::DiskDir dir(folder);
  const auto measure = [&](const DiskRow& row, offload::IoOp op) {
    DiskTransfers transfers(dir.path() / "profile",
                            {.queue_depth = row.depth, .piece_bytes = row.piece_bytes}, rig.host);
    return rig.measure([&] { return transfers.bytes_per_sec(op, bytes / row.part); });
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
