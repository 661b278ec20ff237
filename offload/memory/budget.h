// Promises of bytes, made before anything is allocated. Thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "core/mutex.h"
#include "core/tier.h"

namespace sluice::offload {

class MemoryBudget;

/// The option that sets a tier's budget: "--gpu-memory", "--cpu-memory", "--disk-memory".
std::string_view budget_option(Tier tier);

/// A promise of `bytes` in `tier`; given back when destroyed. Move-only. The budget outlives it.
class Reservation {
 public:
  Reservation() = default;
  Reservation(Reservation&& other) noexcept;
  Reservation& operator=(Reservation&& other) noexcept;
  ~Reservation();
  Tier tier() const { return tier_; }
  std::int64_t bytes() const { return bytes_; }

 private:
  friend class MemoryBudget;
  Reservation(MemoryBudget* budget, Tier tier, std::int64_t bytes)
      : budget_(budget), tier_(tier), bytes_(bytes) {}
  MemoryBudget* budget_ = nullptr;
  Tier tier_ = Tier::kCpu;
  std::int64_t bytes_ = 0;
};

class MemoryBudget {
 public:
  explicit MemoryBudget(PerTier<std::int64_t> total_bytes) : total_(total_bytes) {}
  MemoryBudget(const MemoryBudget&) = delete;
  MemoryBudget& operator=(const MemoryBudget&) = delete;

  /// Throws Error{kOutOfMemory} that says what is needed, free and missing, and which knob helps; `what`
  /// names the purpose ("KV cache"). 0 bytes always fit.
  Reservation reserve(Tier tier, std::int64_t bytes, const std::string& what);
  std::int64_t total(Tier tier) const { return total_[tier]; }
  std::int64_t reserved(Tier tier) const;

 private:
  friend class Reservation;
  void give_back(Tier tier, std::int64_t bytes) noexcept;

  const PerTier<std::int64_t> total_;
  mutable Mutex mutex_;
  PerTier<std::int64_t> reserved_ SLUICE_GUARDED_BY(mutex_);
};

}  // namespace sluice::offload
