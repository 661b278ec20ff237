#include "policy/rates.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <utility>

#include "core/error.h"

namespace sluice::policy {
namespace {

constexpr double kGiga = 1e9;

/// `value(row)` at `threads`, between rows linear, beyond them as the nearest; rows ascend in threads.
template <class Row, class Value>
double at_threads(const std::vector<Row>& rows, int threads, Value value) {
  const auto upper = std::lower_bound(rows.begin(), rows.end(), threads,
                                      [](const Row& row, int n) { return row.threads < n; });
  if (upper == rows.end()) return value(rows.back());
  if (upper == rows.begin() || upper->threads == threads) return value(*upper);
  const Row& lower = *(upper - 1);
  const double part =
      static_cast<double>(threads - lower.threads) / static_cast<double>(upper->threads - lower.threads);
  return value(lower) + part * (value(*upper) - value(lower));
}

/// The lane that carries the figures of `lane`: an urgent lane shares its link with the bulk one.
LaneKind link_of(LaneKind lane) {
  if (lane == LaneKind::kH2dUrgent) return LaneKind::kH2d;
  if (lane == LaneKind::kD2hUrgent) return LaneKind::kD2h;
  return lane;
}

/// Bit i: lane i works at what `lane` does; an urgent and a bulk lane at the same link.
unsigned lanes_of(LaneKind lane) {
  unsigned lanes = 0;
  for (std::size_t other = 0; other < kNumLanes; ++other)
    lanes |= link_of(static_cast<LaneKind>(other)) == lane ? 1U << other : 0U;
  return lanes;
}

}  // namespace

std::vector<int> attention_threads(const HardwareProfile& hardware) {
  std::vector<int> threads;
  for (const AttentionRate& rate : hardware.cpu.attention) threads.push_back(rate.threads);
  std::sort(threads.begin(), threads.end());
  threads.erase(std::unique(threads.begin(), threads.end()), threads.end());
  return threads;
}

Rates::Rates(const HardwareProfile& hardware, int threads)
    : copies_{copy_curve(hardware.link.h2d), copy_curve(hardware.link.d2h)},
      gpu_copy_(hardware.gpu.copy_gb_per_sec * kGiga),
      gpu_attention_(hardware.gpu.attention_gb_per_sec * kGiga),
      gpu_attention_flops_(hardware.gpu.attention_tflop_per_sec * 1e12),
      disk_read_(disk_bytes_per_sec(hardware.disk.read)),
      disk_write_(disk_bytes_per_sec(hardware.disk.write)),
      overheads_(hardware.overheads),
      pass_sec_(hardware.overheads.pass_usec * 1e-6) {
  SLUICE_ASSERT(disk_read_ > 0 && disk_write_ > 0);
  if (threads == 0) threads = attention_threads(hardware).back();
  fill_products(hardware.gpu);
  fill_attention(hardware.cpu, threads);
  fill_shares(hardware, threads);
  fill_overhead_shares();
}

double Rates::Curve::at(double x) const {
  const auto upper =
      std::lower_bound(points.begin(), points.end(), x, [](const Point& p, double v) { return p.x < v; });
  if (upper == points.end()) return points.back().sec * x / points.back().x;  // at the rate of the largest
  if (upper == points.begin()) return points.front().sec;  // as long as the smallest measured
  const Point& lower = *(upper - 1);
  return lower.sec + (upper->sec - lower.sec) * (x - lower.x) / (upper->x - lower.x);
}

/// The time of pieces below the smallest measured one lies on the line through the two smallest: its start is
/// the latency.
Rates::Curve Rates::copy_curve(std::vector<PieceRate> rates) {
  SLUICE_ASSERT(!rates.empty());
  std::sort(rates.begin(), rates.end(),
            [](const PieceRate& a, const PieceRate& b) { return a.piece_kib < b.piece_kib; });
  Curve curve;
  for (const PieceRate& rate : rates) {
    const double bytes = rate.piece_kib * 1024;
    double sec = bytes / (rate.gb_per_sec * kGiga);
    if (!curve.points.empty()) sec = std::max(sec, curve.points.back().sec);  // a larger piece is no faster
    curve.points.push_back({bytes, sec});
  }
  double latency = 0;
  if (curve.points.size() > 1) {
    const auto& [first, second] = std::pair(curve.points[0], curve.points[1]);
    latency = first.sec - (second.sec - first.sec) / (second.x - first.x) * first.x;
  }
  curve.points.insert(curve.points.begin(), {0, std::max(0.0, latency)});
  return curve;
}

double Rates::copy_sec(Link link, std::int64_t bytes, std::int64_t piece_bytes) const {
  const Curve& piece_sec = copies_[static_cast<std::size_t>(link)];
  const std::int64_t whole = bytes / piece_bytes;
  const std::int64_t rest = bytes % piece_bytes;
  return static_cast<double>(whole) * piece_sec.at(static_cast<double>(piece_bytes)) +
         (rest > 0 ? piece_sec.at(static_cast<double>(rest)) : 0);
}

void Rates::fill_products(const GpuRates& gpu) {
  std::vector<ProductRate> rates = gpu.products;
  std::stable_sort(rates.begin(), rates.end(), [](const ProductRate& a, const ProductRate& b) {
    return std::pair(a.million_weights, a.rows) < std::pair(b.million_weights, b.rows);
  });
  for (const ProductRate& rate : rates) {
    auto kernel = std::ranges::find_if(products_, [&](const ProductKernelRates& known) {
      return known.format == rate.format && known.kernel == rate.kernel;
    });
    if (kernel == products_.end()) kernel = products_.insert(kernel, {rate.format, rate.kernel, {}});
    const double elements = rate.million_weights * 1e6;
    if (kernel->sizes.empty() || kernel->sizes.back().elements != elements)
      kernel->sizes.push_back({elements, {}});
    auto& points = kernel->sizes.back().per_element.points;
    double sec = 2 * rate.rows / (rate.tflop_per_sec * 1e12);
    if (!points.empty()) sec = std::max(sec, points.back().sec);  // more rows are no faster
    points.push_back({rate.rows, sec});
  }
}

/// Time grows with the matrix along a line from one size to the next: what a launch costs and multiprocessors
/// that the last wave leaves idle weigh more in a small one. Below the smallest size the line goes on, but
/// never to less than that size's rate gives; above the largest, the rate is that of the largest. A larger
/// matrix is no faster.
double Rates::ProductKernelRates::sec(double rows, double elements) const {
  const auto above =
      std::ranges::find_if(sizes, [&](const ProductCurve& size) { return size.elements >= elements; });
  if (sizes.size() == 1) return sizes.back().sec(rows, elements);
  if (above == sizes.end())
    return std::max(sizes.back().sec(rows, elements), sec(rows, sizes.back().elements));
  const ProductCurve& upper = above == sizes.begin() ? sizes[1] : *above;
  const ProductCurve& lower = *(&upper - 1);
  const double first = lower.sec(rows, lower.elements);
  const double last = std::max(first, upper.sec(rows, upper.elements));
  const double on_line =
      first + (last - first) * (elements - lower.elements) / (upper.elements - lower.elements);
  return above == sizes.begin() ? std::max(on_line, lower.sec(rows, elements)) : on_line;
}

double Rates::product_sec(Encoding format, std::int64_t rows, std::int64_t elements) const {
  const auto fastest = [&](Encoding of) {
    double best = std::numeric_limits<double>::infinity();
    for (const ProductKernelRates& kernel : products_) {
      if (kernel.format == of)
        best = std::min(best, kernel.sec(static_cast<double>(rows), static_cast<double>(elements)));
    }
    return best;
  };
  const double best = fastest(format);
  if (best != std::numeric_limits<double>::infinity()) return best;
  // A format that was not measured is expanded: 2 bytes written and read, its own bytes read, at most 2 too.
  return fastest(Encoding::kDense) + gpu_copy_sec(6.0 * static_cast<double>(elements));
}

void Rates::fill_attention(const CpuRates& cpu, int threads) {
  for (const KvFormat format : {KvFormat::kF32, KvFormat::kF16}) {
    std::vector<AttentionRate> rows;
    for (const AttentionRate& rate : cpu.attention) {
      if (rate.kv_format == format) rows.push_back(rate);
    }
    if (rows.empty()) rows = cpu.attention;  // the same bytes a second
    std::sort(rows.begin(), rows.end(),
              [](const AttentionRate& a, const AttentionRate& b) { return a.threads < b.threads; });
    cpu_attention_[static_cast<std::size_t>(format)] =
        kGiga * at_threads(rows, threads, [](const AttentionRate& rate) { return rate.gb_per_sec; });
  }
}

void Rates::fill_shares(const HardwareProfile& hardware, int threads) {
  std::vector<LinkBesideAttention> rows = hardware.beside_attention;
  std::sort(rows.begin(), rows.end(),
            [](const LinkBesideAttention& a, const LinkBesideAttention& b) { return a.threads < b.threads; });
  LinkBesideAttention attending;
  if (!rows.empty()) {
    using Row = LinkBesideAttention;
    attending.h2d_share = at_threads(rows, threads, [](const Row& row) { return row.h2d_share; });
    attending.d2h_share = at_threads(rows, threads, [](const Row& row) { return row.d2h_share; });
    attending.attention_share = at_threads(rows, threads, [](const Row& row) { return row.attention_share; });
  }
  const unsigned attention = lanes_of(LaneKind::kCpu);
  const unsigned links = lanes_of(LaneKind::kH2d) | lanes_of(LaneKind::kD2h);
  for (std::size_t i = 0; i < kNumLanes; ++i) {
    const LaneKind link = link_of(static_cast<LaneKind>(i));
    const unsigned on_link = lanes_of(link);
    const int num_on_link = std::popcount(on_link);
    std::vector<std::pair<unsigned, double>> factors;  // while any of these lanes works
    for (const LaneBeside& beside : hardware.beside) {
      if (beside.lane == link) factors.emplace_back(lanes_of(beside.other), beside.share);
    }
    if (link == LaneKind::kH2d) factors.emplace_back(attention, attending.h2d_share);
    if (link == LaneKind::kD2h) factors.emplace_back(attention, attending.d2h_share);
    if (link == LaneKind::kCpu) factors.emplace_back(links, attending.attention_share);
    for (unsigned working = 0; working < shares_.size(); ++working) {
      // Bulk and urgent transfers of one direction take turns on their link.
      double share = (working & on_link) == on_link ? 1.0 / num_on_link : 1.0;
      for (const auto& [others, factor] : factors) {
        if ((working & others) != 0) share *= factor;
      }
      shares_[working][i] = share;
    }
  }
}

void Rates::fill_overhead_shares() {
  overhead_shares_ = shares_;
  const double alone = overheads_.gpu_usec;
  if (alone <= 0) return;
  const auto more = [&](double beside) { return std::max(0.0, beside - alone); };
  for (unsigned working = 0; working < overhead_shares_.size(); ++working) {
    double beside = alone;
    if ((working >> lane_index(LaneKind::kH2d) & 1U) != 0) beside += more(overheads_.gpu_beside_h2d_usec);
    if ((working >> lane_index(LaneKind::kD2h) & 1U) != 0) beside += more(overheads_.gpu_beside_d2h_usec);
    overhead_shares_[working][lane_index(LaneKind::kGpu)] *= alone / beside;
  }
}

double Rates::overhead_sec(LaneKind lane) const {
  switch (lane) {
    case LaneKind::kDiskRead:
    case LaneKind::kDiskWrite:
      return overheads_.disk_usec * 1e-6;
    case LaneKind::kGpu:
      return overheads_.gpu_usec * 1e-6;
    case LaneKind::kCpu:
      return overheads_.cpu_usec * 1e-6;
    default:
      return overheads_.transfer_usec * 1e-6;
  }
}

}  // namespace sluice::policy
