#include "apps/sweep/machine_probe.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <vector>

#include "apps/bench_common.h"
#include "apps/profile/disk_transfers.h"
#include "apps/profile/host_kv.h"
#include "apps/profile/rig.h"
#include "apps/profile/step_overhead.h"
#include "core/log.h"
#include "core/units.h"
#include "kernels/device/cpu/thread_pool.h"
#include "offload/io/disk_dir.h"
#include "offload/memory/usable_memory.h"

namespace sluice::apps {
namespace {

constexpr int kRounds = 5;  // of attention, whose median counts

constexpr double kReadSec = 0.5;
constexpr std::int64_t kReadUnit = 64_MiB;
constexpr std::int64_t kMostReadBytes = 1_GiB;
constexpr std::int64_t kPartOfDisk = 16;  // the file leaves the runs the rest

}  // namespace

MachineShares lowest_of(const MachineShares& a, const MachineShares& b) {
  return {std::min(a.host, b.host), std::min(a.disk, b.disk)};
}

/// What is read in a folder.
class MachineProbe::File {
 public:
  File(const std::filesystem::path& folder, std::int64_t bytes, std::span<std::byte> memory)
      : dir_(folder), bytes_(bytes) {
    transfers(memory).bytes_per_sec(offload::IoOp::kWrite, bytes_);
  }

  double read_bytes_per_sec(std::span<std::byte> memory) const {
    DiskTransfers reads = transfers(memory);
    reads.bytes_per_sec(offload::IoOp::kRead, bytes_ / 8);  // warms up
    return reads.bytes_per_sec(offload::IoOp::kRead, bytes_);
  }

 private:
  DiskTransfers transfers(std::span<std::byte> memory) const {
    return {dir_.path() / "probe", kEngineIo, memory};
  }

  const offload::DiskDir dir_;
  const std::int64_t bytes_;
};

MachineProbe::MachineProbe(const policy::HardwareProfile& profile)
    : memory_bytes_(std::clamp(align_up(4 * last_level_cache_bytes(), 64_MiB), kDiskMemoryBytes, 2_GiB)),
      disk_bytes_per_sec_(policy::disk_bytes_per_sec(profile.disk.read)),
      step_sec_(1e-6 * profile.overheads.cpu_usec) {
  for (const policy::AttentionRate& rate : profile.cpu.attention) {
    if (rate.kv_format != KvFormat::kF16 || rate.threads < threads_) continue;
    threads_ = rate.threads;
    attention_gb_per_sec_ = rate.gb_per_sec;
  }
  const double wanted = std::min(kReadSec * disk_bytes_per_sec_, static_cast<double>(kMostReadBytes));
  const double disk_bytes = profile.memory.disk_gib * static_cast<double>(1_GiB);
  file_bytes_ = std::min(std::max(static_cast<std::int64_t>(wanted), kReadUnit),
                         static_cast<std::int64_t>(disk_bytes / kPartOfDisk));
}

MachineProbe::~MachineProbe() = default;

MachineShares MachineProbe::shares(const std::optional<std::string>& disk_dir) {
  const WorkingMemory memory(memory_bytes_, threads_);
  MachineShares shares;
  if (attention_gb_per_sec_ > 0) shares.host = host_share(memory.bytes());
  if (file_bytes_ > 0 && disk_dir) shares.disk = disk_share(*disk_dir, memory);
  return shares;
}

double MachineProbe::host_share(std::span<std::byte> memory) const {
  kernels::ThreadPool pool(threads_);
  kernels::Stream stream(pool);
  HostKv kv(memory, KvFormat::kF16);
  kv.attend(stream);
  std::vector<double> rates;
  for (int i = 0; i < kRounds; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const double bytes = kv.attend(stream);
    rates.push_back(bytes / std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  // The profile's rate is without what steps cost.
  const double rate = rate_without(step_sec_, kv.steps(), kv.kv_bytes(), median_of(std::move(rates)).median);
  return rate / (1e9 * attention_gb_per_sec_);
}

double MachineProbe::disk_share(const std::string& disk_dir, const WorkingMemory& memory) {
  auto found = files_.find(disk_dir);
  if (found == files_.end()) found = files_.emplace(disk_dir, make_file(disk_dir, memory)).first;
  const std::unique_ptr<File>& file = found->second;
  return file == nullptr ? 1 : file->read_bytes_per_sec(memory.bytes()) / disk_bytes_per_sec_;
}

std::unique_ptr<MachineProbe::File> MachineProbe::make_file(const std::string& disk_dir,
                                                            const WorkingMemory& memory) const {
  const std::filesystem::path folder = disk_folder(disk_dir);
  const std::int64_t most = std::min(file_bytes_, offload::usable_disk_bytes(folder) / kPartOfDisk);
  const std::int64_t bytes = most / kReadUnit * kReadUnit;
  if (bytes == 0) {
    log_warn("{}: too little room to see whether the disk is as fast as profiled", folder.string());
    return nullptr;
  }
  memory.fill_half();  // a disk may store zeros without writing them
  return std::make_unique<File>(folder, bytes, memory.bytes());
}

}  // namespace sluice::apps
