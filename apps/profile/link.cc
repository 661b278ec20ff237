#include <algorithm>

#include "apps/attention_batch.h"
#include "apps/profile/parts.h"
#include "core/units.h"

namespace sluice::apps {
namespace {

constexpr std::int64_t kPieces[] = {4_KiB, 64_KiB, 256_KiB, 1_MiB, 4_MiB, 32_MiB};

/// Bytes moved to measure a piece: enough for milliseconds.
std::int64_t bytes_for(std::int64_t piece, const Rig& rig) {
  const auto most = static_cast<std::int64_t>(std::min(rig.host.size(), rig.gpu.size())) / 2;
  return std::min(most, std::max(32_MiB, 256 * piece)) / piece * piece;
}

void copy_pieces(kernels::Stream& stream, std::byte* to, const std::byte* from, std::int64_t piece,
                 std::int64_t bytes) {
  for (std::int64_t at = 0; at < bytes; at += piece) stream.copy(to + at, from + at, piece);
}

/// h2d into the front halves, d2h out of the back ones: both directions never touch the same bytes.
class Link {
 public:
  explicit Link(Rig& rig) : rig_(rig) {}

  double up(std::int64_t piece, std::int64_t bytes) {
    return static_cast<double>(bytes) / rig_.seconds(*rig_.up, [&] {
      copy_pieces(*rig_.up, rig_.gpu.data(), rig_.host.data(), piece, bytes);
    });
  }
  double down(std::int64_t piece, std::int64_t bytes) {
    return static_cast<double>(bytes) /
           rig_.seconds(*rig_.down, [&] { copy_pieces(*rig_.down, host_back(), gpu_back(), piece, bytes); });
  }
  std::byte* host_back() const { return rig_.host.data() + rig_.host.size() / 2; }
  std::byte* gpu_back() const { return rig_.gpu.data() + rig_.gpu.size() / 2; }

 private:
  Rig& rig_;
};

/// What each keeps while the CPU attends with `threads`, over its rate alone.
policy::LinkBesideAttention beside_attention(Rig& rig, Link& link, int threads) {
  constexpr double kSec = 0.25;
  kernels::ThreadPool pool(threads);
  kernels::Stream stream(pool);
  const std::size_t half = rig.host.size() / 2;
  // The pages lie in the front half for d2h and in the back half for h2d.
  const auto batch_in = [&](std::span<std::byte> pages) {
    return AttentionBatch({.pages = pages, .layout = {32, 128, KvFormat::kF16}});
  };
  const AttentionBatch front = batch_in(rig.host.first(half));
  const AttentionBatch back = batch_in(rig.host.last(half));
  const auto rows = static_cast<std::size_t>(front.num_rows());
  std::vector<float> q(rows * 32 * 128, 0.1F);
  std::vector<float> out(q.size());
  const auto attend = [&](const AttentionBatch& batch) {
    batch.run(reinterpret_cast<const std::byte*>(q.data()), reinterpret_cast<std::byte*>(out.data()),
              DType::kF32, stream);
    return batch.kv_bytes();
  };
  const std::int64_t bytes = bytes_for(32_MiB, rig);
  const auto copy_up = [&] {
    link.up(32_MiB, bytes);
    return static_cast<double>(bytes);
  };
  const auto copy_down = [&] {
    link.down(32_MiB, bytes);
    return static_cast<double>(bytes);
  };
  const double alone = run_alone(kSec, [&] { return attend(back); });
  const double up_alone = run_alone(kSec, copy_up);
  const double down_alone = run_alone(kSec, copy_down);
  const Together with_up = run_together(kSec, copy_up, [&] { return attend(back); });
  const Together with_down = run_together(kSec, copy_down, [&] { return attend(front); });
  const auto share = [](double beside, double by_itself) {
    return std::clamp(beside / by_itself, 0.01, 1.0);
  };
  return {threads, share(with_up.first, up_alone), share(with_down.first, down_alone),
          share(with_up.second, alone)};
}

}  // namespace

void measure_link(Rig& rig, policy::HardwareProfile& profile) {
  Link link(rig);
  profile.link.h2d.clear();
  profile.link.d2h.clear();
  for (const std::int64_t piece : kPieces) {
    const std::int64_t bytes = bytes_for(piece, rig);
    if (bytes == 0) continue;
    const double kib = static_cast<double>(piece) / 1024;
    const Measured up = rig.measure([&] { return link.up(piece, bytes); });
    profile.link.h2d.push_back({kib, up.median / 1e9, up.spread_percent});
    const Measured down = rig.measure([&] { return link.down(piece, bytes); });
    profile.link.d2h.push_back({kib, down.median / 1e9, down.spread_percent});
  }
  profile.beside.clear();
  if (!rig.is_cuda()) return;  // lanes that are threads on the same cores: measure_host

  const std::int64_t bytes = bytes_for(32_MiB, rig);
  const double up_alone = profile.link.h2d.back().gb_per_sec * 1e9;
  const double down_alone = profile.link.d2h.back().gb_per_sec * 1e9;
  const auto both = [&](kernels::Stream& other, auto enqueue, auto timed) {
    return rig.measure([&] {
      enqueue();
      enqueue();
      const double rate = timed();
      other.synchronize();
      return rate;
    });
  };
  const Measured up = both(
      *rig.down, [&] { copy_pieces(*rig.down, link.host_back(), link.gpu_back(), 32_MiB, bytes); },
      [&] { return link.up(32_MiB, bytes); });
  const Measured down = both(
      *rig.up, [&] { copy_pieces(*rig.up, rig.gpu.data(), rig.host.data(), 32_MiB, bytes); },
      [&] { return link.down(32_MiB, bytes); });
  profile.beside = {
      {policy::LaneKind::kH2d, policy::LaneKind::kD2h, std::min(1.0, up.median / up_alone)},
      {policy::LaneKind::kD2h, policy::LaneKind::kH2d, std::min(1.0, down.median / down_alone)}};
  std::vector<std::byte> pageable(static_cast<std::size_t>(std::min(bytes, 256_MiB)));
  std::copy_n(rig.host.begin(), pageable.size(), pageable.begin());
  const Measured from_pageable = rig.measure([&] {
    const auto size = static_cast<std::int64_t>(pageable.size());
    return static_cast<double>(size) / rig.seconds(*rig.up, [&] {
      copy_pieces(*rig.up, rig.gpu.data(), pageable.data(), 32_MiB, size / 32_MiB * 32_MiB);
    });
  });
  profile.link.pageable_gb_per_sec = from_pageable.median / 1e9;
  profile.beside_attention.clear();
  for (const int threads : thread_counts(rig.pool.num_threads()))
    profile.beside_attention.push_back(beside_attention(rig, link, threads));
}

}  // namespace sluice::apps
