// Whether the machine is as fast as it was when it was profiled. Other tenants of a machine take memory
// bandwidth, or its disk's, for minutes at a time: what runs meanwhile runs on another machine than the
// profile's. One thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "policy/hardware.h"

namespace sluice::apps {

class WorkingMemory;

/// Rates over the profile's; 1 where nothing is measured.
struct MachineShares {
  double host = 1;  ///< of attention over K and V in host memory
  double disk = 1;  ///< of reads from the disk
};
/// Of each the lower one.
MachineShares lowest_of(const MachineShares& a, const MachineShares& b);

class MachineProbe {
 public:
  /// Counts with the profile's rate of attention over fp16 KV, that of its largest number of threads, and
  /// with its rate of disk reads as the engine makes them. Without a disk tier it reads none.
  explicit MachineProbe(const policy::HardwareProfile& profile);
  ~MachineProbe();
  MachineProbe(const MachineProbe&) = delete;
  MachineProbe& operator=(const MachineProbe&) = delete;

  /// Attends with as many threads over all of the memory, six times: about half a second, of which most is
  /// for making the memory, which is given back. With `disk_dir`, a value of --disk-dir, it also reads a file
  /// there, about half a second at the profile's rate and 1 GiB at most. The file is written when its folder
  /// is first named, takes at most a sixteenth of what is free, and lies in a DiskDir that is removed with
  /// the probe. Throws Error{kOutOfMemory, kIo}.
  MachineShares shares(const std::optional<std::string>& disk_dir);

 private:
  class File;

  double host_share(std::span<std::byte> memory) const;
  double disk_share(const std::string& disk_dir, const WorkingMemory& memory);
  std::unique_ptr<File> make_file(const std::string& disk_dir, const WorkingMemory& memory) const;

  const std::int64_t memory_bytes_;
  const double disk_bytes_per_sec_;
  const double step_sec_;  // what a step of attention costs, whatever its size
  int threads_ = 1;
  double attention_gb_per_sec_ = 0;                     // 0: the profile says nothing of it
  std::int64_t file_bytes_ = 0;                         // most of a file; 0: the profile has no disk tier
  std::map<std::string, std::unique_ptr<File>> files_;  // by --disk-dir; null: no room
};

}  // namespace sluice::apps
