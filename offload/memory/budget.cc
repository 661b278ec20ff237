#include "offload/memory/budget.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/units.h"

namespace sluice::offload {

std::string_view budget_option(Tier tier) {
  switch (tier) {
    case Tier::kGpu:
      return "--gpu-memory";
    case Tier::kCpu:
      return "--cpu-memory";
    case Tier::kDisk:
      return "--disk-memory";
  }
  return "?";
}

Reservation::Reservation(Reservation&& other) noexcept
    : budget_(std::exchange(other.budget_, nullptr)),
      tier_(other.tier_),
      bytes_(std::exchange(other.bytes_, 0)) {}

Reservation& Reservation::operator=(Reservation&& other) noexcept {
  if (this != &other) {
    if (budget_ != nullptr) budget_->give_back(tier_, bytes_);
    budget_ = std::exchange(other.budget_, nullptr);
    tier_ = other.tier_;
    bytes_ = std::exchange(other.bytes_, 0);
  }
  return *this;
}

Reservation::~Reservation() {
  if (budget_ != nullptr) budget_->give_back(tier_, bytes_);
}

Reservation MemoryBudget::reserve(Tier tier, std::int64_t bytes, const std::string& what) {
  SLUICE_ASSERT(bytes >= 0);
  const MutexLock lock(mutex_);
  const std::int64_t free = std::max<std::int64_t>(total_[tier] - reserved_[tier], 0);
  // Compared with what is free, never added up first: a sum could overflow.
  SLUICE_CHECK(bytes == 0 || bytes <= free, Code::kOutOfMemory,
               fmt::format("{} memory for {}: need {}, {} of {} free, {} missing", tier_name(tier), what,
                           format_bytes(bytes), format_bytes(free), format_bytes(total_[tier]),
                           format_bytes(bytes - free)),
               fmt::format("raise {} by {}, or place less on this tier with --percent or a smaller block",
                           budget_option(tier), format_bytes(bytes - free)));
  reserved_[tier] += bytes;
  return {this, tier, bytes};
}

std::int64_t MemoryBudget::reserved(Tier tier) const {
  const MutexLock lock(mutex_);
  return reserved_[tier];
}

void MemoryBudget::give_back(Tier tier, std::int64_t bytes) noexcept {
  const MutexLock lock(mutex_);
  reserved_[tier] -= bytes;
}

}  // namespace sluice::offload
