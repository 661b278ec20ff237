#include "apps/bench_common.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <fstream>
#include <random>
#include <sched.h>
#include <unistd.h>

#include "core/build_config.h"
#include "core/dtype.h"
#include "core/error.h"
#include "core/units.h"
#include "kernels/device/cpu/simd.h"
#include "offload/memory/usable_memory.h"

namespace sluice::apps {
namespace {

std::string cpu_model() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(": ") + 2);
  }
  return "unknown CPU";
}

offload::Reservation reserve_available(offload::MemoryBudget& budget, std::int64_t bytes) {
  return budget.reserve(Tier::kCpu, bytes, "the benchmark's working set");
}

}  // namespace

void require_measuring_build() {
  SLUICE_CHECK(
      kBuildType != "Debug" && kSanitize.empty(), Code::kUnsupported,
      fmt::format("a {} build{} cannot be measured", kBuildType,
                  kSanitize.empty() ? std::string() : fmt::format(" with sanitizers ({})", kSanitize)),
      "build with `cmake --preset cpu`");
}

int usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

std::int64_t last_level_cache_bytes() {
  return std::max(
      {0L, sysconf(_SC_LEVEL4_CACHE_SIZE), sysconf(_SC_LEVEL3_CACHE_SIZE), sysconf(_SC_LEVEL2_CACHE_SIZE)});
}

std::string machine_text(int num_threads) {
  return fmt::format("{}, {} thread{}, {}, last-level cache {}", cpu_model(), num_threads,
                     num_threads == 1 ? "" : "s", kernels::simd_target(),
                     format_bytes(last_level_cache_bytes()));
}

std::int64_t working_set_bytes(const std::string& option) {
  if (!option.empty()) return align_up(parse_bytes(option, "--working-set"), 1_MiB);
  return align_up(std::max(1_GiB, 8 * last_level_cache_bytes()), 1_MiB);
}

WorkingMemory::WorkingMemory(std::int64_t bytes, int num_threads)
    : budget_(PerTier<std::int64_t>{{0, offload::usable_host_bytes(), 0}}),
      arena_(reserve_available(budget_, bytes), num_threads) {}

void WorkingMemory::fill_half() const {
  std::array<Half, 1 << 16> pattern{};
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (Half& value : pattern) value = to_half(uniform(random));
  const std::span<std::byte> to = bytes();
  for (std::size_t at = 0; at < to.size(); at += sizeof pattern) {
    std::memcpy(to.data() + at, pattern.data(), std::min(sizeof pattern, to.size() - at));
  }
}

std::vector<Rates> alternate(int rounds, const std::vector<std::function<double()>>& contenders) {
  std::vector<Rates> rates(contenders.size());
  for (int round = -1; round < rounds; ++round) {
    for (std::size_t i = 0; i < contenders.size(); ++i) {
      const auto start = std::chrono::steady_clock::now();
      const double work = contenders[i]();
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
      if (round >= 0) rates[i].values.push_back(work / seconds.count());
    }
  }
  for (Rates& rate : rates) std::sort(rate.values.begin(), rate.values.end());
  return rates;
}

std::string rates_text(const Rates& rates, double unit) {
  return fmt::format("{:.2f} ({:.2f} to {:.2f})", rates.median() / unit, rates.low() / unit,
                     rates.high() / unit);
}

}  // namespace sluice::apps
