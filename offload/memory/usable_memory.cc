#include "offload/memory/usable_memory.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>
#include <string_view>
#include <sys/statvfs.h>
#include <system_error>

#include "core/errno_text.h"
#include "core/error.h"
#include "core/units.h"

namespace sluice::offload {
namespace {

namespace fs = std::filesystem;

/// A kernel text file, or empty if it does not exist or may not be read.
std::optional<std::string> read_text(const fs::path& path) {
  std::ifstream in(path);
  if (!in) return std::nullopt;
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

/// The number that `text` starts with after blanks; empty if there is none ("max"). Saturates.
std::optional<std::int64_t> leading_number(std::string_view text) {
  const std::size_t start = text.find_first_not_of(" \t");
  if (start == std::string_view::npos) return std::nullopt;
  text.remove_prefix(start);
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc::result_out_of_range) return std::numeric_limits<std::int64_t>::max();
  if (error != std::errc{}) return std::nullopt;
  return number;
}

/// The number after `key` at the start of a line of `text`: "MemAvailable: 123 kB", "inactive_file 123".
std::optional<std::int64_t> number_of_key(std::string_view text, std::string_view key) {
  while (!text.empty()) {
    const std::size_t newline = text.find('\n');
    std::string_view line = text.substr(0, newline);
    text.remove_prefix(newline == std::string_view::npos ? text.size() : newline + 1);
    if (line.starts_with(key) && line.size() > key.size() &&
        (line[key.size()] == ':' || line[key.size()] == ' ')) {
      return leading_number(line.substr(key.size() + 1));
    }
  }
  return std::nullopt;
}

std::int64_t kib_of_key(const fs::path& path, std::string_view key) {
  const std::optional<std::string> text = read_text(path);
  const std::optional<std::int64_t> kib = text ? number_of_key(*text, key) : std::nullopt;
  SLUICE_CHECK(kib.has_value(), Code::kIo, fmt::format("{}: no {} in it", path.string(), key),
               "mount /proc, or state the budgets with --gpu-memory, --cpu-memory and --disk-memory");
  return *kib * 1024;
}

/// Names of the files of one cgroup version.
struct CgroupFiles {
  std::string_view limit, usage, inactive_file;
};
constexpr CgroupFiles kVersion1 = {"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"};
constexpr CgroupFiles kVersion2 = {"memory.max", "memory.current", "inactive_file"};
// Version 1 writes "no limit" as the largest multiple of a page; nobody has half of that.
constexpr std::int64_t kNoLimit = std::numeric_limits<std::int64_t>::max() / 2;

/// What one group leaves; empty if it has no limit.
std::optional<std::int64_t> group_headroom(const fs::path& group, const CgroupFiles& files) {
  const auto limit_text = read_text(group / files.limit);
  const auto usage_text = read_text(group / files.usage);
  if (!limit_text || !usage_text) return std::nullopt;
  const auto limit = leading_number(*limit_text);
  const auto usage = leading_number(*usage_text);
  if (!limit || !usage || *limit >= kNoLimit) return std::nullopt;
  const auto stat = read_text(group / "memory.stat");
  const std::int64_t reclaimable = stat ? number_of_key(*stat, files.inactive_file).value_or(0) : 0;
  return std::max<std::int64_t>(*limit - std::max<std::int64_t>(*usage - reclaimable, 0), 0);
}

/// The least headroom from `group` (a path below `mount`) up to the mount itself. Levels that do not exist
/// are skipped: inside a container the path may be the host's, and the container's own group is then the
/// mount.
std::optional<std::int64_t> least_headroom(const fs::path& mount, fs::path group, const CgroupFiles& files) {
  std::optional<std::int64_t> least;
  group = group.relative_path();
  while (true) {
    const auto headroom = group_headroom(group.empty() ? mount : mount / group, files);
    if (headroom) least = std::min(least.value_or(*headroom), *headroom);
    if (group.empty()) return least;
    group = group.parent_path();
  }
}

bool lists_memory(std::string_view controllers) {
  while (!controllers.empty()) {
    const std::size_t comma = controllers.find(',');
    if (controllers.substr(0, comma) == "memory") return true;
    controllers.remove_prefix(comma == std::string_view::npos ? controllers.size() : comma + 1);
  }
  return false;
}

}  // namespace

std::int64_t available_bytes(const SystemRoots& roots) {
  return kib_of_key(roots.proc / "meminfo", "MemAvailable");
}

std::optional<std::int64_t> cgroup_headroom_bytes(const SystemRoots& roots) {
  const auto text = read_text(roots.proc / "self/cgroup");
  if (!text) return std::nullopt;
  std::optional<std::int64_t> least;
  const auto take = [&](std::optional<std::int64_t> headroom) {
    if (headroom) least = std::min(least.value_or(*headroom), *headroom);
  };
  const fs::path mount = roots.sys / "fs/cgroup";
  std::istringstream lines(*text);
  for (std::string line;
       std::getline(lines, line);) {  // "hierarchy:controllers:path", controllers empty in v2
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string_view controllers = std::string_view(line).substr(first + 1, second - first - 1);
    // A process outside its namespace's root sees a path with "..": only the mount can be looked at then.
    const std::string path = line.substr(second + 1);
    const fs::path group = path.find("..") == std::string::npos ? fs::path(path) : fs::path("/");
    if (controllers.empty()) {
      take(least_headroom(mount, group, kVersion2));
    } else if (lists_memory(controllers)) {
      take(least_headroom(mount / "memory", group, kVersion1));
    }
  }
  return least;
}

std::int64_t usable_host_bytes(const SystemRoots& roots) {
  const std::int64_t available = available_bytes(roots);
  return std::min(available, cgroup_headroom_bytes(roots).value_or(available));
}

std::int64_t usable_disk_bytes(const fs::path& folder) {
  std::error_code ignored;
  fs::path existing = fs::absolute(folder);
  while (!fs::exists(existing, ignored) && existing.has_parent_path() && existing != existing.parent_path()) {
    existing = existing.parent_path();
  }
  struct statvfs stat = {};
  SLUICE_CHECK(statvfs(existing.c_str(), &stat) == 0, Code::kIo,
               fmt::format("{}: cannot ask for its free space: {}", existing.string(), errno_text(errno)),
               "name another folder with --disk-dir");
  return static_cast<std::int64_t>(stat.f_bavail) * static_cast<std::int64_t>(stat.f_frsize);
}

std::int64_t resident_bytes(const SystemRoots& roots) {
  return kib_of_key(roots.proc / "self/status", "VmRSS");
}
std::int64_t peak_resident_bytes(const SystemRoots& roots) {
  return kib_of_key(roots.proc / "self/status", "VmHWM");
}

}  // namespace sluice::offload
