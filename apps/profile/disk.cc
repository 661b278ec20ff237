#include <algorithm>
#include <filesystem>

#include "apps/profile/parts.h"
#include "apps/raw_disk.h"
#include "core/error.h"
#include "core/log.h"
#include "core/units.h"
#include "offload/io/block_io.h"
#include "offload/io/disk_dir.h"
#include "offload/memory/usable_memory.h"

namespace sluice::apps {
namespace {

constexpr std::int64_t kMemory = 256_MiB;

/// Writes the whole file once, in requests as the engine makes them.
void write_file(const std::filesystem::path& path, std::int64_t bytes, std::span<std::byte> memory) {
  const auto io = offload::make_block_io({});
  const offload::FileId file = io->open(path, offload::FileMode::kReadWriteCreate);
  constexpr std::int64_t kRequest = 32_MiB;
  for (std::int64_t at = 0; at < bytes;) {
    const std::int64_t length = std::min(kRequest, bytes - at);
    SLUICE_ASSERT(io->try_submit({offload::IoOp::kWrite, file, at, memory.data(), length, 0}));
    const auto done = io->wait(std::chrono::steady_clock::time_point::max());
    SLUICE_ASSERT(done.has_value());
    done->status.throw_if_failed();
    at += length;
  }
}

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
  write_file(path, bytes, memory);
  const std::int64_t block_file = static_cast<std::int64_t>(memory.size());
  struct Row {
    int depth;
    std::int64_t piece;
  };
  const auto table = [&](offload::IoOp op) {
    std::vector<policy::DiskRate> rates;
    for (const Row row : {Row{1, 1_MiB}, Row{8, 1_MiB}, Row{32, 1_MiB}, Row{8, 4_MiB}}) {
      if (row.depth * row.piece > block_file) continue;
      const Measured rate = rig.measure([&] {
        return raw_bytes_per_sec(path, op, 0, bytes / 4, {row.depth, row.piece}, memory);
      });
      rates.push_back(
          {row.depth, static_cast<double>(row.piece) / 1024, rate.median / 1e9, rate.spread_percent});
    }
    return rates;
  };
  profile.disk.read = table(offload::IoOp::kRead);
  profile.disk.write = table(offload::IoOp::kWrite);
}

}  // namespace sluice::apps
