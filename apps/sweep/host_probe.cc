#include "apps/sweep/host_probe.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "apps/bench_common.h"
#include "apps/profile/host_kv.h"
#include "apps/profile/rig.h"
#include "core/units.h"
#include "kernels/device/cpu/thread_pool.h"
#include "offload/memory/arena.h"

namespace sluice::apps {
namespace {

constexpr int kRounds = 5;

}  // namespace

HostProbe::HostProbe(const policy::HardwareProfile& profile)
    : bytes_(std::clamp(align_up(4 * last_level_cache_bytes(), 64_MiB), 256_MiB, 2_GiB)) {
  for (const policy::AttentionRate& rate : profile.cpu.attention) {
    if (rate.kv_format != KvFormat::kF16 || rate.threads < threads_) continue;
    threads_ = rate.threads;
    gb_per_sec_ = rate.gb_per_sec;
  }
}

double HostProbe::share() const {
  if (gb_per_sec_ == 0) return 1;  // the profile says nothing of it
  offload::MemoryBudget budget(PerTier<std::int64_t>{{0, bytes_, 0}});
  const offload::Arena memory(budget.reserve(Tier::kCpu, bytes_, "probe"), threads_);
  kernels::ThreadPool pool(threads_);
  kernels::Stream stream(pool);
  HostKv kv(memory.memory(), KvFormat::kF16);
  kv.attend(stream);
  std::vector<double> rates;
  for (int i = 0; i < kRounds; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const double bytes = kv.attend(stream);
    rates.push_back(bytes / std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return median_of(std::move(rates)).median / (1e9 * gb_per_sec_);
}

}  // namespace sluice::apps
