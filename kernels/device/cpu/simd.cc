#include "kernels/device/cpu/simd.h"

#include "core/error.h"
// clang-format off
#include "kernels/device/cpu/simd_targets.h"
#include "hwy/highway.h"
#include "hwy/targets.h"
// clang-format on

namespace sluice::kernels {
namespace {

// The best target is the lowest bit (hwy/detect_targets.h). Asked once: SupportedTargets() also makes the
// best target the one in use, which would undo a forced one.
std::int64_t available() {
  static const std::int64_t targets = hwy::SupportedTargets() & HWY_TARGETS;
  return targets;
}

template <class Visit>
void for_each_target(std::int64_t targets, const Visit& visit) {
  for (; targets != 0; targets &= targets - 1) visit(targets & -targets);
}

std::int64_t forced = 0;  // 0: the best one

}  // namespace

std::vector<std::string> simd_targets() {
  std::vector<std::string> names;
  for_each_target(available(), [&](std::int64_t target) { names.emplace_back(hwy::TargetName(target)); });
  return names;
}

std::string simd_target() {
  const std::int64_t targets = available();
  return hwy::TargetName(forced != 0 ? forced : targets & -targets);
}

void force_simd_target(std::string_view name) {
  std::int64_t chosen = 0;
  std::string known;
  for_each_target(available(), [&](std::int64_t target) {
    if (hwy::TargetName(target) == name) chosen = target;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", hwy::TargetName(target));
  });
  SLUICE_CHECK(chosen != 0 || name.empty(), Code::kUnsupported,
               fmt::format("no SIMD target '{}' on this machine", name),
               fmt::format("choose one of {}", known));
  forced = chosen;
  hwy::GetChosenTarget().Update(chosen != 0 ? chosen : available());
}

}  // namespace sluice::kernels
