#include <algorithm>

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
}

}  // namespace sluice::apps
