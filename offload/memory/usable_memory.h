// What this machine can still give: for budgets that nobody stated. Thread-safe.
#pragma once

#include <cstdint>
#include <filesystem>

namespace sluice::offload {

/// Bytes of RAM that a process may still take: the smaller of MemAvailable and what the process's cgroup
/// (v1 or v2, every level up) leaves below its limit.
std::int64_t usable_host_bytes();
/// Free bytes for an unprivileged user on the file system of `folder` (its nearest existing parent).
std::int64_t usable_disk_bytes(const std::filesystem::path& folder);
/// Resident bytes of this process now, and at its peak.
std::int64_t resident_bytes();
std::int64_t peak_resident_bytes();

}  // namespace sluice::offload
