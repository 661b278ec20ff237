#include "apps/version.h"

#include <thread>

#include <fmt/format.h>

#include "core/build_config.h"

namespace sluice::apps {

std::string devices_text() { return fmt::format("cpu: {} threads", std::thread::hardware_concurrency()); }

std::string version_text() {
  std::string build(kBuildType);
  if (!kSanitize.empty()) build += fmt::format(", sanitizers {}", kSanitize);
  return fmt::format("sluice {}\n  commit    {}\n  build     {}, {}\n  devices   {}\n", kVersion, kCommit,
                     build, kCompiler, devices_text());
}

}  // namespace sluice::apps
