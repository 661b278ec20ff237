#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#include "apps/profile/host_kv.h"
#include "apps/profile/parts.h"
#include "core/units.h"
#include "kernels/device/cpu/probe.h"
#include "kernels/ops/linear.h"
#include "offload/memory/usable_memory.h"

namespace sluice::apps {
namespace {

double rate_of(const std::function<double()>& body) {
  const auto start = std::chrono::steady_clock::now();
  const double done = body();
  return done / std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// The CPU device's lanes are threads on the same cores: what each keeps beside each other one. A round has
/// all pairs and each lane alone, so that what slows the machine for a while slows both sides of a share.
void measure_lanes_together(Rig& rig, policy::HardwareProfile& profile) {
  using policy::LaneKind;
  constexpr double kSec = 0.1;
  constexpr std::int64_t kDim = 2048;
  const std::size_t half = rig.host.size() / 2;
  std::byte* const weights = rig.gpu.data();
  std::byte* const x = rig.gpu.data() + kDim * kDim * 2;
  const std::function<double()> products = [&] {
    kernels::linear({.x = {x, DType::kF32, 4, kDim, kDim},
                     .weight = {WeightFormat::kDenseF16, {weights, kDim * kDim * 2}, kDim, kDim},
                     .y = {x + 8 * kDim * 4, DType::kF32, 4, kDim, kDim}},
                    *rig.compute);
    return 1.0;
  };
  HostKv kv(rig.host.first(std::min<std::size_t>(half, 256_MiB)), KvFormat::kF16);
  const std::function<double()> attend = [&] { return kv.attend(*rig.cpu); };
  const std::function<double()> copy = [&] {
    std::memcpy(rig.gpu.data() + rig.gpu.size() / 2, rig.host.data() + half, 32_MiB);
    return static_cast<double>(32_MiB);
  };
  const std::function<double()> copy_back = [&] {
    std::memcpy(rig.host.data() + half + half / 2, rig.gpu.data() + rig.gpu.size() / 4 * 3, 32_MiB);
    return static_cast<double>(32_MiB);
  };
  struct Lane {
    LaneKind kind;
    const std::function<double()>& body;
  };
  const std::vector<Lane> lanes = {{LaneKind::kGpu, products},
                                   {LaneKind::kCpu, attend},
                                   {LaneKind::kH2d, copy},
                                   {LaneKind::kD2h, copy_back}};
  struct Pair {
    std::size_t a, b;
    std::vector<double> share_of_a, share_of_b;  // by round
  };
  std::vector<Pair> pairs;
  for (std::size_t a = 0; a < lanes.size(); ++a) {
    for (std::size_t b = a + 1; b < lanes.size(); ++b) pairs.push_back({a, b, {}, {}});
  }
  for (int round = 0; round < rig.options.rounds; ++round) {
    std::vector<double> alone;
    for (const Lane& lane : lanes) alone.push_back(run_alone(kSec, lane.body));
    for (Pair& pair : pairs) {
      const Together both = run_together(kSec, lanes[pair.a].body, lanes[pair.b].body);
      pair.share_of_a.push_back(both.first / alone[pair.a]);
      pair.share_of_b.push_back(both.second / alone[pair.b]);
    }
  }
  const auto share = [](std::vector<double>& rounds) {
    return std::clamp(median_of(std::move(rounds)).median, 0.05, 1.0);
  };
  for (Pair& pair : pairs) {
    const LaneKind a = lanes[pair.a].kind, b = lanes[pair.b].kind;
    profile.beside.push_back({a, b, share(pair.share_of_a)});
    profile.beside.push_back({b, a, share(pair.share_of_b)});
  }
}

}  // namespace

void measure_host(Rig& rig, policy::HardwareProfile& profile) {
  const auto half = rig.host.size() / 2;
  profile.cpu.read_gb_per_sec = rig.measure([&] {
                                     return rate_of([&] {
                                       kernels::read_all(rig.host, rig.pool);
                                       return static_cast<double>(rig.host.size());
                                     });
                                   })
                                    .median /
                                1e9;
  constexpr std::int64_t kGrain = 4_MiB;
  profile.cpu.memcpy_gb_per_sec =
      rig.measure([&] {
           return rate_of([&] {
             rig.pool.parallel_for(static_cast<std::int64_t>(half), kGrain,
                                   [&](std::int64_t begin, std::int64_t end) {
                                     std::memcpy(rig.host.data() + half + begin, rig.host.data() + begin,
                                                 static_cast<std::size_t>(end - begin));
                                   });
             return static_cast<double>(half);
           });
         })
          .median /
      1e9;
  measure_attention_on_host(rig, profile);
  if (!rig.is_cuda()) measure_lanes_together(rig, profile);
}

void measure_memory(const Rig& rig, policy::HardwareProfile& profile) {
  // What the rig holds now is free again when it is gone.
  const auto host = static_cast<std::int64_t>(rig.host.size());
  const auto gpu = static_cast<std::int64_t>(rig.gpu.size());
  const std::int64_t usable = offload::usable_host_bytes() + host + (rig.is_cuda() ? 0 : gpu);
  profile.memory.gpu_is_host = !rig.is_cuda();
  profile.memory.cpu_gib = 0.9 * gib(usable);
  profile.memory.gpu_gib = rig.is_cuda() ? 0.9 * gib(rig.device->free_bytes() + gpu) : 0.9 * gib(usable);
  profile.memory.pin_gb_per_sec = static_cast<double>(host) / rig.pin_sec / 1e9;
  profile.memory.pinned_gib = rig.is_cuda() ? gib(host) : 0;
}

}  // namespace sluice::apps
