// `sluice profile`: measures what the planner counts with, and writes it as YAML.
#include <cerrno>
#include <chrono>
#include <cmath>
#include <concepts>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include <CLI/App.hpp>
#include <fmt/format.h>

#include "apps/bench_common.h"
#include "apps/commands.h"
#include "apps/profile/find_profile.h"
#include "apps/profile/parts.h"
#include "core/errno_text.h"
#include "core/error.h"
#include "core/log.h"
#include "core/units.h"
#include "policy/hardware.h"

namespace sluice::apps {
namespace {

struct ProfileFlags {
  ProfileOptions rig;
  std::string output;  ///< empty: the user's own profile
  std::string name;
  std::string memory, disk_size = "2GiB";
};

std::string today() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  return fmt::format("{:04}-{:02}-{:02}", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday);
}

/// Four digits say all that a measurement knows. The size of a piece is none.
class Rounder {
 public:
  template <class T>
  void operator()(std::string_view name, T& value, std::string_view /*help*/, const Bounds& = {}) {
    if constexpr (std::same_as<T, double>) {
      if (value == 0 || name == "piece_kib") return;
      const double unit = std::pow(10.0, std::floor(std::log10(std::abs(value))) - 3);
      value = std::stod(fmt::format("{:.10g}", std::round(value / unit) * unit));
    } else if constexpr (sluice::detail::kIsVector<T>) {
      for (auto& row : value) visit_fields(*this, row);
    } else if constexpr (ConfigStruct<T>) {
      visit_fields(*this, value);
    }
  }
};

void write(const std::string& path, const std::string& text) {
  if (path == "-") {
    fmt::print("{}", text);
    return;
  }
  std::ofstream out(path, std::ios::trunc);
  out << text << std::flush;
  SLUICE_CHECK(out.good(), Code::kIo, fmt::format("cannot write '{}'", path),
               "give --output a path on a disk with free space");
}

/// Throws what `write` would throw after minutes of measuring. Leaves nothing behind.
void check_writable(const std::filesystem::path& path) {
  std::error_code ignored;
  const bool is_new = !std::filesystem::exists(path, ignored);
  errno = 0;
  const bool opens = std::ofstream(path, std::ios::app).good();
  const int reason = errno;
  if (is_new) std::filesystem::remove(path, ignored);
  SLUICE_CHECK(opens, Code::kIo, fmt::format("cannot write '{}': {}", path.string(), errno_text(reason)),
               "give --output a file in a folder that exists and may be written");
}

std::filesystem::path beside(std::filesystem::path path) { return path += ".new"; }

/// The user's own profile, replaced as a whole: a command that reads it meanwhile finds the old one.
void write_own(const std::filesystem::path& path, const std::string& text) {
  write(beside(path).string(), text);
  std::error_code failed;
  std::filesystem::rename(beside(path), path, failed);
  SLUICE_CHECK(!failed, Code::kIo, fmt::format("cannot write '{}': {}", path.string(), failed.message()),
               "give --output FILE");
}

std::filesystem::path own_path() {
  std::filesystem::path own = user_profile_path();
  SLUICE_CHECK(!own.empty(), Code::kInvalidArgument,
               "neither HOME nor XDG_CONFIG_HOME says where your own profile is", "give --output FILE, or -");
  return own;
}

void run(ProfileFlags options) {
  require_measuring_build();
  const std::filesystem::path own = options.output.empty() ? own_path() : std::filesystem::path();
  if (!options.memory.empty()) options.rig.memory_bytes = parse_bytes(options.memory, "--memory");
  options.rig.disk_bytes = parse_bytes(options.disk_size, "--disk-size");
  if (!own.empty()) {
    std::error_code failed;  // the check finds what it leaves
    std::filesystem::create_directories(own.parent_path(), failed);
    check_writable(beside(own));
  } else if (options.output != "-") {
    check_writable(options.output);
  }
  const auto start = std::chrono::steady_clock::now();
  Rig rig(options.rig);
  policy::HardwareProfile profile;
  profile.machine = {
      .name = options.name,
      .device = rig.device->description(),
      .cpu = machine_text(rig.pool.num_threads()),
      .date = today(),
      .source = fmt::format("measured by sluice profile, median of {} rounds; transfer, disk and pass "
                            "overheads are defaults",
                            options.rig.rounds)};
  for (const ProfilePart& part : profile_parts()) {
    const auto began = std::chrono::steady_clock::now();
    log_info("measuring {}", part.name);
    part.measure(rig, profile);
    log_debug("{}: {:.1f} s", part.name,
              std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
  }
  Rounder rounder;
  visit_fields(rounder, profile);
  const std::string text = to_yaml(profile);
  policy::parse_hardware(text, "the measured profile");  // what is written can be read
  own.empty() ? write(options.output, text) : write_own(own, text);
  log_info("measured in {:.0f} s",
           std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  if (!own.empty())
    log_info("wrote {}: `sluice plan` and `sluice generate` count with it from now on", own.string());
}

}  // namespace

void add_profile_command(CLI::App& app) {
  auto options = std::make_shared<ProfileFlags>();
  CLI::App* command =
      app.add_subcommand("profile", "Measure this machine for `sluice plan`, in under 2 minutes");
  command->add_option("--output", options->output,
                      "The YAML file, - is standard output; default: your own profile, "
                      "~/.config/sluice/hardware.yaml, which `plan` and `generate` then count with");
  command->add_option("--name", options->name, "A name of the machine, for people");
  command->add_option("--device", options->rig.device, "auto, cpu, cuda or cuda:N")->capture_default_str();
  command->add_option("--disk-dir", options->rig.disk_dir,
                      "Folder whose disk is measured; default: the temporary one");
  command
      ->add_option("--disk-size", options->disk_size, "Size of the file written there; 0 leaves the disk out")
      ->capture_default_str();
  command->add_option("--threads", options->rig.threads, "Threads of the CPU; default: as a run takes them")
      ->check(CLI::Range(1, 4096));
  command->add_option("--rounds", options->rig.rounds, "Rounds of each figure; the median is written")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  command->add_option("--memory", options->memory, "Host memory to measure with; default: at most 4GiB");
  command->footer(
      "Example: sluice profile && sluice plan --model random:opt-30b\n"
      "Nothing else should run meanwhile. policy/HARDWARE.md says what each figure means.");
  command->callback([options] { run(*options); });
}

}  // namespace sluice::apps
