// CPU attention by threads, alone and beside the links, and what beginning and ending a step of it costs.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "apps/attention_batch.h"
#include "apps/profile/host_kv.h"
#include "apps/profile/parts.h"
#include "apps/profile/step_overhead.h"
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
  std::vector<double> overhead_sec;                           // of a step
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
// As after short prompts. On the CPU device noise hides what a step costs beside usual sequences.
constexpr std::int64_t kFewPositions = 4, kShortSequences = 512;

double share(double beside, double alone) { return std::clamp(beside / alone, 0.01, 1.0); }

}  // namespace

void measure_attention_on_host(Rig& rig, policy::HardwareProfile& profile) {
  const std::size_t half = rig.host.size() / 2;
  // h2d reads the front half meanwhile, d2h writes the back half, with what it holds.
  HostKv front(rig.host.first(half), KvFormat::kF16);
  HostKv back(rig.host.last(half), KvFormat::kF16);
  HostKv wide(rig.host.last(half), KvFormat::kF32);
  HostKv brief(rig.host.last(half), KvFormat::kF16, kFewPositions, kShortSequences);
  HostKv& stepped = rig.is_cuda() ? back : brief;
  const bool splits = stepped.steps(kSmallStep) > stepped.steps();
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
      const double small =
          splits ? run_alone(kSec / 2, [&] { return stepped.attend(crew->stream, kSmallStep); }) : 0;
      const double usual =
          rig.is_cuda() ? alone : run_alone(kSec / 2, [&] { return stepped.attend(crew->stream); });
      const double alone_fp32 = run_alone(kSec / 2, [&] { return wide.attend(crew->stream); });
      if (round == 0) continue;  // warms up
      crew->fp16.push_back(alone);
      if (splits)
        crew->overhead_sec.push_back(step_overhead_sec(stepped.kv_bytes() / small, stepped.steps(kSmallStep),
                                                       stepped.kv_bytes() / usual, stepped.steps()));
      crew->fp32.push_back(alone_fp32);
      if (!rig.is_cuda()) continue;
      const Together with_up = run_together(kSec, up, [&] { return back.attend(crew->stream); });
      const Together with_down = run_together(kSec, down, [&] { return front.attend(crew->stream); });
      crew->h2d_share.push_back(share(with_up.first, up_alone));
      crew->d2h_share.push_back(share(with_down.first, down_alone));
      crew->attention_share.push_back(share(with_up.second, alone));
    }
  }

  // One for all numbers of threads, and no more than a part of the shortest usual step. With memory for a
  // single small step the default stays and is no part of the rates.
  double overhead_sec = 0;
  if (splits) {
    std::vector<double> overheads;
    double shortest_sec = std::numeric_limits<double>::infinity();
    for (const auto& crew : crews) {
      overheads.insert(overheads.end(), crew->overhead_sec.begin(), crew->overhead_sec.end());
      const double sec = back.kv_bytes() / median_of(crew->fp16).median;
      shortest_sec = std::min(shortest_sec, sec / static_cast<double>(back.steps()));
    }
    overhead_sec = std::clamp(median_of(overheads).median, 0.0, shortest_sec / 2);
    profile.overheads.cpu_usec = 1e6 * overhead_sec;
  }

  profile.cpu.attention.clear();
  profile.beside_attention.clear();
  for (const KvFormat format : {KvFormat::kF16, KvFormat::kF32}) {
    for (const auto& crew : crews) {
      const Measured rate = median_of(format == KvFormat::kF16 ? crew->fp16 : crew->fp32);
      const HostKv& kv = format == KvFormat::kF16 ? back : wide;
      const double net = rate_without(overhead_sec, kv.steps(), kv.kv_bytes(), rate.median);
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
