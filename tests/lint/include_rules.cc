#include "tests/lint/include_rules.h"

#include <algorithm>
#include <array>
#include <optional>
#include <regex>
#include <sstream>

#include <fmt/format.h>

namespace sluice::lint {
namespace {

// Includes point down: apps -> offload -> {kernels, policy} -> core. Tests may include everything; nothing
// that is shipped includes tests.
struct Folder {
  std::string_view name;
  std::vector<std::string_view> may_include;
};
const std::array<Folder, 6> kFolders = {{
    {"core", {"core"}},
    {"kernels", {"kernels", "core"}},
    {"policy", {"policy", "core"}},
    {"offload", {"offload", "kernels", "policy", "core"}},
    {"apps", {"apps", "offload", "kernels", "policy", "core"}},
    {"tests", {"tests", "apps", "offload", "kernels", "policy", "core"}},
}};

// One door per dependency: these headers, in these files and nowhere else.
struct Door {
  std::regex header;
  std::regex files;
  std::string_view reason;
};
const std::array kDoors = {
    Door{std::regex("(cuda|cublas|cusparse|curand|nvml|nvtx|cub/|thrust/|cooperative_groups).*"),
         std::regex("kernels/[a-z]+/cuda/.*|kernels/.*_cuda\\.h|.*\\.cuh?"),
         "CUDA belongs in kernels/*/cuda/, *_cuda.h and *.cu"},
    Door{std::regex("liburing.*"), std::regex("offload/io/uring_io\\.cc"),
         "liburing belongs in offload/io/uring_io.cc"},
    Door{std::regex("yaml-cpp/.*"), std::regex("core/config/.*"), "yaml-cpp belongs in core/config/"},
    Door{std::regex("boost/(asio|beast).*"), std::regex("apps/server/.*"),
         "Asio and Beast belong in apps/server/"},
    Door{std::regex("hwy/.*"), std::regex("(tests/)?kernels/.*"), "Highway belongs in kernels/"},
    Door{std::regex("spdlog/.*"), std::regex("core/log\\.cc"), "log through core/log.h"},
    Door{std::regex("pcre2.*"), std::regex("core/tokenizer/.*"), "PCRE2 belongs in core/tokenizer/"},
    Door{std::regex("xxh.*"), std::regex("(core|apps)/.*"), "hashes are made in core/ and apps/"},
    Door{std::regex("CLI/.*"), std::regex("apps/.*|tests/.*"), "command lines belong in apps/"},
    Door{std::regex("nlohmann/.*"), std::regex("(core|apps|tests)/.*"),
         "JSON is read and written by core/ and apps/"},
    Door{std::regex("(gtest|gmock)/.*"), std::regex("tests/.*"), "GoogleTest belongs in tests/"},
    Door{std::regex("benchmark/.*"), std::regex("tests/bench/.*|apps/.*"),
         "Google Benchmark belongs in benches"},
    // policy is pure computation; core starts no thread (core/mutex.h wraps the standard mutex for all).
    Door{std::regex(
             "(fstream|filesystem|iostream|cstdio|thread|stop_token|mutex|shared_mutex|condition_variable|"
             "future|"
             "semaphore|latch|barrier|chrono|random)|(unistd|fcntl|pthread|sched|signal)\\.h|(sys|linux)/.*"),
         std::regex("(?!policy/).*"), "policy opens no file, starts no thread and reads no clock"},
    Door{std::regex("thread|stop_token|future|semaphore|latch|barrier|pthread\\.h"),
         std::regex("(?!core/).*"), "core knows no threads"},
};

const Folder* folder_of(std::string_view path) {
  const std::string_view top = path.substr(0, path.find('/'));
  const auto found =
      std::find_if(kFolders.begin(), kFolders.end(), [&](const Folder& f) { return f.name == top; });
  return found == kFolders.end() ? nullptr : &*found;
}

std::optional<std::string> why_wrong_direction(const Folder& from, const Folder& to) {
  if (std::find(from.may_include.begin(), from.may_include.end(), to.name) != from.may_include.end())
    return {};
  return fmt::format("{}/ must not include {}/", from.name, to.name);
}

}  // namespace

std::vector<std::string> check_includes(std::string_view path, std::string_view text) {
  static const std::regex include("^\\s*#\\s*include\\s*([<\"])([^>\"]+)[>\"].*");
  std::vector<std::string> breaches;
  const Folder* from = folder_of(path);
  if (from == nullptr) return {fmt::format("{}: outside the folders that hold code", path)};

  std::istringstream lines{std::string(text)};
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    std::smatch match;
    if (!std::regex_match(line, match, include)) continue;
    const std::string header = match[2];
    const auto report = [&](std::string_view reason) {
      breaches.push_back(fmt::format("{}:{}: #include {}: {}", path, number, header, reason));
    };
    if (const Folder* to = folder_of(header)) {
      if (const auto reason = why_wrong_direction(*from, *to)) report(*reason);
      continue;
    }
    const bool relative = header.find('/') == std::string::npos || header.starts_with('.');
    if (match[1] == "\"" && relative) report("give the path from the repository root");
    for (const Door& door : kDoors) {
      const bool applies = std::regex_match(header, door.header);
      if (applies && !std::regex_match(path.begin(), path.end(), door.files)) report(door.reason);
    }
  }
  return breaches;
}

}  // namespace sluice::lint
