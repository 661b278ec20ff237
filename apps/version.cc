#include "apps/version.h"

#include <thread>

#include <fmt/format.h>

#include "core/build_config.h"
#include "kernels/device/cpu/simd.h"
#include "kernels/device/device.h"
#include "offload/io/block_io.h"

namespace sluice::apps {

std::string devices_text() {
  return fmt::format("cpu: {} threads, {}; {}", std::thread::hardware_concurrency(), kernels::simd_target(),
                     kernels::cuda_devices_text());
}

std::string version_text() {
  std::string build(kBuildType);
  if (!kSanitize.empty()) build += fmt::format(", sanitizers {}", kSanitize);
  return fmt::format("sluice {}\n  commit    {}\n  build     {}, {}\n  devices   {}\n  disk I/O  {}\n",
                     kVersion, kCommit, build, kCompiler, devices_text(),
                     offload::make_block_io({})->description());
}

}  // namespace sluice::apps
