// What this machine can still give: for budgets that nobody stated. Thread-safe.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace sluice::offload {

/// Where the kernel's text files lie; tests point it at copies.
struct SystemRoots {
  std::filesystem::path proc = "/proc";
  std::filesystem::path sys = "/sys";
};

/// Bytes of RAM that a process may still take: the smaller of MemAvailable and what the process's cgroup
/// (v1 or v2, every level up) leaves below its limit. Throws Error{kIo} where MemAvailable cannot be read.
std::int64_t usable_host_bytes(const SystemRoots& roots = {});
/// MemAvailable alone.
std::int64_t available_bytes(const SystemRoots& roots = {});
/// The least that any level of the process's memory cgroup leaves; empty where no level has a limit. Inactive
/// page cache charged to a group counts as free, as the kernel reclaims it first.
std::optional<std::int64_t> cgroup_headroom_bytes(const SystemRoots& roots = {});

/// Free bytes for an unprivileged user on the file system of `folder` (its nearest existing parent).
/// Throws Error{kIo}.
std::int64_t usable_disk_bytes(const std::filesystem::path& folder);

/// Resident bytes of this process now, and at its peak. Throws Error{kIo}.
std::int64_t resident_bytes(const SystemRoots& roots = {});
std::int64_t peak_resident_bytes(const SystemRoots& roots = {});

}  // namespace sluice::offload
