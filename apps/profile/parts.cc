#include "apps/profile/parts.h"

#include <array>

namespace sluice::apps {

std::span<const ProfilePart> profile_parts() {
  using policy::HardwareProfile;
  static constexpr std::array kParts = {
      ProfilePart{"memory", [](Rig& rig, HardwareProfile& profile) { measure_memory(rig, profile); }},
      ProfilePart{"the link", measure_link},
      ProfilePart{"the CPU", measure_host},
      ProfilePart{"the disk", [](Rig& rig, HardwareProfile& profile) { measure_disk(rig, profile); }},
      ProfilePart{"overheads of steps", measure_gpu_overheads},
      ProfilePart{"products and attention", measure_gpu}};
  return kParts;
}

}  // namespace sluice::apps
