#include "policy/profile_floor.h"

#include <algorithm>

#include "policy/rates.h"
#include "policy/step_costs.h"

namespace sluice::policy {
namespace {

/// Seconds of a row with all weights, and the most operations a second at any measured number of rows.
void set_products(MeasuredRates& to, const HardwareProfile& hardware, const Rates& rates,
                  const ModelSpec& spec, std::span<const Encoding> formats) {
  const ModelProducts products(spec, formats);
  const auto count = [&](const std::vector<ModelProducts::Product>& stage) {
    for (const ModelProducts::Product& product : stage) {
      to.pass_products_sec +=
          static_cast<double>(product.count) * rates.product_sec(product.format, 1, product.elements);
      for (const ProductRate& row : hardware.gpu.products) {
        const auto n = static_cast<std::int64_t>(row.rows);
        const auto operations = 2 * static_cast<double>(n * product.elements);
        to.flops = std::max(to.flops, operations / rates.product_sec(product.format, n, product.elements));
      }
    }
  };
  for (std::int64_t unit = 1; unit <= spec.num_layers; ++unit) {
    const ModelProducts::UnitProducts& stages = products.kinds()[products.kind_of(unit)];
    count(stages.pre);
    count(stages.post);
  }
  count(products.output());
}

}  // namespace

MeasuredRates measured_rates(const HardwareProfile& hardware, const RunShape& shape,
                             std::span<const Encoding> formats) {
  const Rates rates(hardware);
  const std::array<double, kNumLanes> peaks = peak_rates(hardware, shape.placement.kv_format);
  MeasuredRates measured;
  measured.h2d_bytes_per_sec = peaks[lane_index(LaneKind::kH2d)];
  measured.cpu_attention_bytes_per_sec = peaks[lane_index(LaneKind::kCpu)];
  measured.disk_read_bytes_per_sec = peaks[lane_index(LaneKind::kDiskRead)];
  const bool streams = shape.weight_slot_bytes > 0;
  // Without prefetch no weights need to move while the CPU attends.
  const bool beside = streams && shape.placement.prefetch;
  if (shape.max_cpu_rows > 0 && beside && !hardware.memory.gpu_is_host) {
    const unsigned both = 1U << lane_index(LaneKind::kH2d) | 1U << lane_index(LaneKind::kCpu);
    measured.h2d_bytes_per_sec *= rates.share(LaneKind::kH2d, both);
    measured.cpu_attention_bytes_per_sec *= rates.share(LaneKind::kCpu, both);
  }
  set_products(measured, hardware, rates, shape.spec, formats);
  return measured;
}

std::array<double, kNumLanes> peak_rates(const HardwareProfile& hardware, KvFormat kv_format) {
  std::array<double, kNumLanes> peaks{};
  const auto set = [&](LaneKind lane, double rate) { peaks[lane_index(lane)] = rate; };
  for (const LaneKind lane : {LaneKind::kH2d, LaneKind::kH2dUrgent})
    set(lane, most_bytes_per_sec(hardware.link.h2d));
  for (const LaneKind lane : {LaneKind::kD2h, LaneKind::kD2hUrgent})
    set(lane, most_bytes_per_sec(hardware.link.d2h));
  set(LaneKind::kDiskRead, most_bytes_per_sec(hardware.disk.read));
  set(LaneKind::kDiskWrite, most_bytes_per_sec(hardware.disk.write));
  set(LaneKind::kCpu, 1 / Rates(hardware).cpu_decode_sec(kv_format, 1));
  return peaks;
}

}  // namespace sluice::policy
