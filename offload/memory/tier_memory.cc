#include "offload/memory/tier_memory.h"

#include "core/error.h"

namespace sluice::offload {

Error with_plan(const Error& refused, const std::string& plan) {
  std::string what = refused.what();
  if (!refused.fix().empty()) what.resize(what.size() - refused.fix().size() - std::string_view("; ").size());
  return {refused.code(), fmt::format("{} (planned: {})", what, plan), refused.fix()};
}

TierMemory::TierMemory(const policy::MemoryPlan& plan, MemoryBudget& budget,
                       const std::filesystem::path& disk_folder, int touch_threads, kernels::Device& device,
                       HostWeights host_weights) {
  const auto or_plan = [&](Tier tier, const auto& get) {
    try {
      return get();
    } catch (const Error& e) {
      if (e.code() != Code::kOutOfMemory) throw;
      throw with_plan(e, policy::to_string(plan, tier));  // asked for in one piece: says what it was for
    }
  };
  const auto reserve = [&](Tier tier) {
    return or_plan(tier, [&] {
      return budget.reserve(tier, plan.total[tier], fmt::format("the {} tier", tier_name(tier)));
    });
  };
  const auto allocate = [&](Reservation reservation, std::initializer_list<std::int64_t> pageable_bytes) {
    const Tier tier = reservation.tier();
    return or_plan(tier,
                   [&] { return Arena(std::move(reservation), touch_threads, device, pageable_bytes); });
  };
  // All three promises first: a run that cannot fit fails before anything is touched.
  Reservation gpu = reserve(Tier::kGpu);
  Reservation cpu = reserve(Tier::kCpu);
  disk_ = reserve(Tier::kDisk);
  gpu_ = allocate(std::move(gpu), {0});
  // Weights come first in the plan, and so in the arena.
  const std::int64_t weights = plan.bytes(policy::Purpose::kWeights, Tier::kCpu);
  cpu_ = allocate(std::move(cpu), {host_weights == HostWeights::kPageable ? weights : 0, weights});
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
