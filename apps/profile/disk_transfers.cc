#include "apps/profile/disk_transfers.h"

#include <algorithm>

#include "apps/raw_disk.h"
#include "policy/hardware.h"

namespace sluice::apps {

static_assert(kEngineIo.queue_depth == policy::kDiskQueueDepth);
static_assert(static_cast<double>(kEngineIo.piece_bytes) == policy::kDiskPieceKib * 1024);

std::filesystem::path disk_folder(const std::string& disk_dir) {
  return disk_dir.empty() ? std::filesystem::temp_directory_path() : std::filesystem::path(disk_dir);
}

DiskTransfers::DiskTransfers(const std::filesystem::path& file, const offload::BlockIoOptions& io,
                             std::span<std::byte> memory)
    : memory_(memory.first(std::min<std::size_t>(memory.size(), kDiskMemoryBytes))),
      io_(offload::make_block_io(io)) {
  io_->register_memory(memory_);
  file_ = io_->open(file, offload::FileMode::kReadWriteCreate);
}

double DiskTransfers::bytes_per_sec(offload::IoOp op, std::int64_t bytes) {
  return block_io_bytes_per_sec(*io_, file_, op, bytes, memory_);
}

}  // namespace sluice::apps
