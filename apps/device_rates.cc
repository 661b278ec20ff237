#include "apps/device_rates.h"

#include <algorithm>
#include <chrono>

#include "apps/bench_common.h"
#include "core/units.h"
#include "kernels/device/cpu/probe.h"
#include "kernels/device/cpu/thread_pool.h"
#include "kernels/ops/linear.h"
#include "offload/memory/arena.h"

namespace sluice::apps {
namespace {

constexpr std::int64_t kLinkBytes = 1_GiB;
constexpr std::int64_t kReadBytes = 2_GiB;
constexpr std::int64_t kGpuBytes = 2_GiB;
constexpr std::int64_t kPiece = 32_MiB;
constexpr std::int64_t kProduct = 8192;
constexpr int kProducts = 10;

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

/// Seconds on the device of what `enqueue` puts on the stream as step `step`; `meanwhile` runs beside it.
template <class Enqueue, class Meanwhile>
double device_sec(kernels::Stream& stream, std::int64_t step, const Enqueue& enqueue,
                  const Meanwhile& meanwhile) {
  stream.begin_step(step);
  enqueue();
  stream.end_step(step);
  meanwhile();
  const kernels::StepSpan span = stream.await_step(step);
  return span.end_sec - span.start_sec;
}

}  // namespace

policy::MeasuredRates DeviceRates::medians() const {
  return {median(h2d_bytes_per_sec), median(host_read_bytes_per_sec), median(flops)};
}

DeviceRates measure_device_rates(kernels::Device& device, int threads, int rounds) {
  kernels::ThreadPool pool(threads);
  offload::MemoryBudget budget(PerTier<std::int64_t>{{kGpuBytes, kLinkBytes, 0}});
  const offload::Arena host(budget.reserve(Tier::kCpu, kLinkBytes, "host"), threads, device);
  const WorkingMemory to_read(kReadBytes, threads);
  const offload::Arena gpu(budget.reserve(Tier::kGpu, kGpuBytes, "device"), 1, device);
  std::byte* const h = host.memory().data();
  std::byte* const d = gpu.memory().data();
  const auto workspace = gpu.memory().last(static_cast<std::size_t>(kernels::workspace_bytes(device.kind())));
  const auto link = device.make_stream(kernels::StreamPriority::kBulk, {});
  const auto compute = device.make_stream(kernels::StreamPriority::kBulk, workspace);
  compute->bind_thread();
  // Random operands: constant ones run faster than any model's.
  to_read.fill_half();
  const std::int64_t matrix = kProduct * kProduct * 2;
  link->copy(d, to_read.bytes().data(), 2 * matrix);
  link->synchronize();

  DeviceRates rates;
  for (int round = -1; round < rounds; ++round) {  // the first is a warm-up
    double read_rate = 0;
    constexpr int kTimes = 4;  // both take about 80 ms on a machine of the reference's kind
    constexpr int kReads = 5;
    const double link_sec = device_sec(
        *link, round + 2,
        [&] {
          for (int i = 0; i < kTimes; ++i) {
            for (std::int64_t at = 0; at < kLinkBytes; at += kPiece) link->copy(d + at, h + at, kPiece);
          }
        },
        [&] {
          const auto start = std::chrono::steady_clock::now();
          for (int i = 0; i < kReads; ++i) kernels::read_all(to_read.bytes(), pool);
          const std::chrono::duration<double> sec = std::chrono::steady_clock::now() - start;
          read_rate = kReads * static_cast<double>(kReadBytes) / sec.count();
        });
    if (round < 0) continue;
    rates.h2d_bytes_per_sec.push_back(kTimes * static_cast<double>(kLinkBytes) / link_sec);
    rates.host_read_bytes_per_sec.push_back(read_rate);
  }
  link->copy(d, to_read.bytes().data(), 2 * matrix);
  link->synchronize();
  for (int round = -1; round < rounds; ++round) {
    const double sec = device_sec(
        *compute, round + 2,
        [&] {
          for (int i = 0; i < kProducts; ++i) {
            kernels::linear({.x = {d, DType::kF16, kProduct, kProduct, kProduct},
                             .weight = {WeightFormat::kDenseF16,
                                        {d + matrix, static_cast<std::size_t>(matrix)},
                                        kProduct,
                                        kProduct},
                             .y = {d + 2 * matrix, DType::kF16, kProduct, kProduct, kProduct}},
                            *compute);
          }
        },
        [] {});
    if (round >= 0)
      rates.flops.push_back(kProducts * 2 * static_cast<double>(kProduct * kProduct * kProduct) / sec);
  }
  return rates;
}

}  // namespace sluice::apps
