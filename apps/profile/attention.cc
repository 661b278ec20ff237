// CPU attention by threads, alone and beside the links, and what beginning and ending a step of it costs.
#include <algorithm>
#include <memory>
#include <vector>

#include "apps/attention_batch.h"
#include "apps/profile/host_kv.h"
#include "apps/profile/parts.h"
#include "core/units.h"

namespace sluice::apps {
namespace {

constexpr double kSec = 0.12;

/// The threads that attend.
struct Crew {
  explicit Crew(int threads) : pool(threads), stream(pool) {}
  kernels::ThreadPool pool;
  kernels::Stream stream;

  // A value for each round.
  std::vector<double> fp16, fp32;                             // bytes of K and V a second, alone
  std::vector<double> fp16_small;                             // in small steps
  std::vector<double> h2d_share, d2h_share, attention_share;  // beside each other
};

/// A quarter, half, three quarters and all of `threads`.
std::vector<int> thread_counts(int threads) {
  std::vector<int> counts;
  for (const int quarters : {1, 2, 3, 4}) counts.push_back(std::max(1, threads * quarters / 4));
  counts.erase(std::unique(counts.begin(), counts.end()), counts.end());
  return counts;
}

// A quarter of the usual step: its sequences are few enough to show what a step costs whatever its size.
constexpr std::int64_t kSmallStep = HostKv::kUsualStep / 4;

double bytes_of(const HostKv& kv, std::int64_t sequences) {
  return kv.sequence_bytes() * static_cast<double>(sequences);
}

/// What a step takes beside its bytes, of the rates in steps of both sizes: t = overhead + sequences * each.
double step_overhead_sec(const HostKv& kv, double usual_rate, double small_rate) {
  const double small = bytes_of(kv, kSmallStep) / small_rate;
  const double usual = bytes_of(kv, HostKv::kUsualStep) / usual_rate;
  const double more = usual - small;  // of the sequences that a usual step has more
  return std::max(0.0, small - more * kSmallStep / (HostKv::kUsualStep - kSmallStep));
}

/// The rate of a step's bytes without its overhead, which is at most half of the step.
double net_rate(const HostKv& kv, double usual_rate, double overhead_sec) {
  const double bytes = bytes_of(kv, HostKv::kUsualStep);
  const double sec = bytes / usual_rate;
  return bytes / std::max(sec - overhead_sec, sec / 2);
}

double share(double beside, double alone) { return std::clamp(beside / alone, 0.01, 1.0); }

}  // namespace

void measure_attention_on_host(Rig& rig, policy::HardwareProfile& profile) {
  const std::size_t half = rig.host.size() / 2;
  // h2d reads the front half meanwhile, d2h writes the back half, with what it holds.
  HostKv front(rig.host.first(half), KvFormat::kF16);
  HostKv back(rig.host.last(half), KvFormat::kF16);
  HostKv wide(rig.host.last(half), KvFormat::kF32);
  const auto bytes = static_cast<std::int64_t>(std::min(half, rig.gpu.size() / 2));
  const auto copy = [bytes](kernels::Stream& stream, std::byte* to, const std::byte* from) {
    stream.copy(to, from, bytes);
    stream.synchronize();
    return static_cast<double>(bytes);
  };
  const auto up = [&] { return copy(*rig.up, rig.gpu.data(), rig.host.data()); };
  const auto down = [&] {
    return copy(*rig.down, rig.host.data() + half, rig.gpu.data() + rig.gpu.size() / 2);
  };

  if (rig.is_cuda()) copy(*rig.up, rig.gpu.data() + rig.gpu.size() / 2, rig.host.data() + half);

  std::vector<std::unique_ptr<Crew>> crews;
  for (const int threads : thread_counts(rig.pool.num_threads()))
    crews.push_back(std::make_unique<Crew>(threads));
  // All rows in each round: other tenants of a machine take memory bandwidth for seconds at a time, and the
  // rounds of a row shall not lie in one of them.
  for (int round = 0; round <= rig.options.rounds; ++round) {
    const double up_alone = rig.is_cuda() ? run_alone(kSec / 2, up) : 0;
    const double down_alone = rig.is_cuda() ? run_alone(kSec / 2, down) : 0;
    for (const auto& crew : crews) {
      const double alone = run_alone(kSec, [&] { return back.attend(crew->stream); });
      const double small = run_alone(kSec / 2, [&] { return back.attend(crew->stream, kSmallStep); });
      const double alone_fp32 = run_alone(kSec / 2, [&] { return wide.attend(crew->stream); });
      if (round == 0) continue;  // warms up
      crew->fp16.push_back(alone);
      crew->fp16_small.push_back(small);
      crew->fp32.push_back(alone_fp32);
      if (!rig.is_cuda()) continue;
      const Together with_up = run_together(kSec, up, [&] { return back.attend(crew->stream); });
      const Together with_down = run_together(kSec, down, [&] { return front.attend(crew->stream); });
      crew->h2d_share.push_back(share(with_up.first, up_alone));
      crew->d2h_share.push_back(share(with_down.first, down_alone));
      crew->attention_share.push_back(share(with_up.second, alone));
    }
  }

  // One for all numbers of threads. With too little memory for a few steps the default stays.
  double overhead_sec = 0;
  if (back.num_sequences() >= 2 * HostKv::kUsualStep) {
    std::vector<double> overheads;
    for (const auto& crew : crews) {
      overheads.push_back(
          step_overhead_sec(back, median_of(crew->fp16).median, median_of(crew->fp16_small).median));
    }
    overhead_sec = median_of(overheads).median;
    profile.overheads.cpu_usec = 1e6 * overhead_sec;
  }

  profile.cpu.attention.clear();
  profile.beside_attention.clear();
  for (const KvFormat format : {KvFormat::kF16, KvFormat::kF32}) {
    for (const auto& crew : crews) {
      const Measured rate = median_of(format == KvFormat::kF16 ? crew->fp16 : crew->fp32);
      const double net = net_rate(format == KvFormat::kF16 ? back : wide, rate.median, overhead_sec);
      profile.cpu.attention.push_back({format, crew->pool.num_threads(), net / 1e9, rate.spread_percent});
    }
  }
  if (!rig.is_cuda()) return;
  for (const auto& crew : crews) {
    profile.beside_attention.push_back({crew->pool.num_threads(), median_of(crew->h2d_share).median,
                                        median_of(crew->d2h_share).median,
                                        median_of(crew->attention_share).median});
  }
}

}  // namespace sluice::apps
