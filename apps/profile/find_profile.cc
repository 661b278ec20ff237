#include "apps/profile/find_profile.h"

#include <cstdlib>

#include <fmt/format.h>

#include "apps/bench_common.h"
#include "apps/profile/parts.h"
#include "core/config/config.h"
#include "core/config/nearest.h"
#include "core/error.h"
#include "core/log.h"
#include "core/units.h"
#include "kernels/device/cpu/thread_pool.h"
#include "offload/choose_device.h"

namespace sluice::apps {
namespace {

namespace fs = std::filesystem;

policy::HardwareProfile read_profile(const std::string& path) {
  policy::ReadProfile read = policy::parse_hardware(sluice::detail::read_config_file(path), path);
  for (const MissingField& field : read.defaulted)
    log_warn("{}: {} is missing; {} is used", path, field.key, field.default_value);
  return std::move(read.profile);
}

std::string not_from_here(const std::string& path, const std::string& device, const std::string& here) {
  return fmt::format("{} is a profile of another machine: its device is '{}', this one's is '{}'", path,
                     device, here);
}

/// A device's description without what another run on the same machine may have otherwise: threads of the
/// CPU, and total memory, which drivers count differently.
std::string lasting(std::string_view description) {
  std::string text;
  while (!description.empty()) {
    const std::size_t end = std::min(description.find(", "), description.size());
    const std::string_view part = description.substr(0, end);
    if (!part.ends_with(" threads") && !part.ends_with("iB")) text += fmt::format("{}, ", part);
    description.remove_prefix(std::min(end + 2, description.size()));
  }
  return text;
}

bool same_device(const std::string& a, const std::string& b) { return lasting(a) == lasting(b); }

}  // namespace

fs::path user_profile_path() {
  const char* const config = std::getenv("XDG_CONFIG_HOME");
  const char* const home = std::getenv("HOME");
  fs::path folder;
  // The XDG base directory specification has a relative path ignored.
  if (config != nullptr && fs::path(config).is_absolute()) {
    folder = config;
  } else if (home != nullptr && *home != '\0') {
    folder = fs::path(home) / ".config";
  } else {
    return {};
  }
  return folder / "sluice" / "hardware.yaml";
}

std::string device_description(const std::string& choice) {
  const offload::DeviceChoice chosen = offload::choose_device(offload::parse_device(choice));
  kernels::ThreadPool pool(offload::default_threads(chosen));  // the CPU device names its threads
  return offload::make_device(chosen, pool)->description();
}

KnownProfile named_profile(const std::string& name, const std::string& here) {
  KnownProfile profile{{}, "--hardware " + name};
  if (fs::exists(name) && !fs::is_directory(name)) {
    profile.hardware = read_profile(name);
  } else if (auto shipped = policy::find_builtin_hardware(name)) {
    profile.hardware = *std::move(shipped);
  } else {
    const std::vector<std::string> names = policy::builtin_hardware_names();
    const std::vector<std::string_view> known(names.begin(), names.end());
    throw Error(Code::kNotFound, fmt::format("--hardware {}: neither a file nor a profile that ships", name),
                suggest_name(name, known));
  }
  const std::string& device = profile.hardware.machine.device;
  if (!here.empty() && !same_device(here, device)) log_warn("{}", not_from_here(name, device, here));
  return profile;
}

std::optional<KnownProfile> user_profile(const std::string& here) {
  const fs::path path = user_profile_path();
  std::error_code unreadable;
  if (path.empty() || !fs::exists(path, unreadable)) return std::nullopt;
  KnownProfile profile{read_profile(path.string()), path.string()};
  const std::string& device = profile.hardware.machine.device;
  if (same_device(device, here)) return profile;
  log_warn("{}; it is not used, `sluice profile` replaces it", not_from_here(path.string(), device, here));
  return std::nullopt;
}

KnownProfile measured_profile(const std::string& device, const std::string& disk_dir) {
  log_info(
      "no profile of this machine: it is measured for about 10 seconds; `sluice profile` does it once "
      "and thoroughly");
  ProfileOptions options{.device = device, .disk_dir = disk_dir, .rounds = 1};
  options.memory_bytes = 512_MiB;
  options.disk_bytes = 256_MiB;
  Rig rig(options);
  KnownProfile profile;
  profile.origin = "a short measurement";
  profile.hardware.machine = {.name = "this machine",
                              .device = rig.device->description(),
                              .cpu = machine_text(rig.pool.num_threads()),
                              .date = {},
                              .source = profile.origin};
  for (const ProfilePart& part : profile_parts()) part.measure(rig, profile.hardware);
  return profile;
}

KnownProfile find_profile(const std::string& name, const std::string& device, const std::string& disk_dir) {
  if (!name.empty()) {
    std::string here;
    try {  // who names one that ships means another machine
      if (fs::exists(name)) here = device_description(device);
    } catch (const Error& e) {
      log_debug("this machine's device is not known: {}", e.what());
    }
    KnownProfile named = named_profile(name, here);
    log_info("counting with {}", named.origin);
    return named;
  }
  if (auto own = user_profile(device_description(device))) {
    log_info("counting with {} ({})", own->origin, own->hardware.machine.date);
    return *std::move(own);
  }
  return measured_profile(device, disk_dir);
}

}  // namespace sluice::apps
