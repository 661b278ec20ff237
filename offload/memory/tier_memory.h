// The memory of a run: exactly what the plan lists, allocated once. GPU and CPU tiers are one arena each; the
// disk tier is one preallocated file per purpose. Made at start by one thread, then read-only.
#pragma once

#include <array>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <span>
#include <string>

#include "core/error.h"
#include "offload/io/scratch_file.h"
#include "offload/memory/arena.h"
#include "offload/memory/budget.h"
#include "offload/memory/host_weights.h"
#include "policy/memory_plan.h"

namespace sluice::offload {

/// The refusal of memory with what it was planned for behind its message: "(planned: gpu: ...)".
Error with_plan(const Error& refused, const std::string& plan);

class TierMemory {
 public:
  /// Reserves and allocates every item of `plan`. `disk_folder` is used only if the plan has disk bytes.
  /// Throws Error{kOutOfMemory} with the numbers and what the tier was planned for, {kIo}; `touch_threads`
  /// touch the memory in parallel. `device` provides the GPU tier and outlives the object. Where it cannot
  /// pin all that it should, weights go without first, then everything; it says so.
  TierMemory(const policy::MemoryPlan& plan, MemoryBudget& budget, const std::filesystem::path& disk_folder,
             int touch_threads, kernels::Device& device, HostWeights host_weights = HostWeights::kPinned);

  /// The block of one purpose; empty if the plan has none. GPU and CPU tiers only.
  std::span<std::byte> block(policy::Purpose purpose, Tier tier) const;
  /// All memory of a tier.
  std::span<std::byte> arena(Tier tier) const;
  /// The file of one purpose, or null.
  const ScratchFile* file(policy::Purpose purpose) const;

 private:
  static constexpr std::size_t kNumPurposes = 12;
  std::optional<Arena> gpu_, cpu_;
  Reservation disk_;
  std::array<std::array<std::span<std::byte>, 2>, kNumPurposes> blocks_;
  std::array<std::optional<ScratchFile>, kNumPurposes> files_;
};

}  // namespace sluice::offload
