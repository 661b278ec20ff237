#include "offload/memory/tier_memory.h"

#include <fmt/format.h>

namespace sluice::offload {

TierMemory::TierMemory(const policy::MemoryPlan& plan, MemoryBudget& budget,
                       const std::filesystem::path& disk_folder, int touch_threads, kernels::Device& device,
                       HostWeights host_weights) {
  const auto reserve = [&](Tier tier) {
    return budget.reserve(tier, plan.total[tier], fmt::format("the {} tier", tier_name(tier)));
  };
  // All three promises first: a run that cannot fit fails before anything is touched.
  Reservation gpu = reserve(Tier::kGpu);
  Reservation cpu = reserve(Tier::kCpu);
  disk_ = reserve(Tier::kDisk);
  gpu_.emplace(std::move(gpu), touch_threads, device);
  // Weights come first in the plan, and so in the arena.
  const std::int64_t pageable =
      host_weights == HostWeights::kPageable ? plan.bytes(policy::Purpose::kWeights, Tier::kCpu) : 0;
  cpu_.emplace(std::move(cpu), touch_threads, device, pageable);
  for (const policy::PlannedBytes& item : plan.items) {
    const auto purpose = static_cast<std::size_t>(item.purpose);
    const std::string name(policy::purpose_name(item.purpose));
    if (item.tier == Tier::kDisk) {
      files_.at(purpose).emplace(disk_folder, fmt::format("tier-{}", purpose), item.bytes);
    } else {
      Arena& arena = item.tier == Tier::kGpu ? *gpu_ : *cpu_;
      blocks_.at(purpose)[static_cast<std::size_t>(item.tier)] = arena.take(item.bytes, name);
    }
  }
}

std::span<std::byte> TierMemory::block(policy::Purpose purpose, Tier tier) const {
  return blocks_.at(static_cast<std::size_t>(purpose)).at(static_cast<std::size_t>(tier));
}

std::span<std::byte> TierMemory::arena(Tier tier) const {
  return tier == Tier::kGpu ? gpu_->memory() : cpu_->memory();
}

const ScratchFile* TierMemory::file(policy::Purpose purpose) const {
  const auto& file = files_.at(static_cast<std::size_t>(purpose));
  return file ? &*file : nullptr;
}

}  // namespace sluice::offload
