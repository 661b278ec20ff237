// `sluice bench device`: the rates of a CUDA device against which runs are judged: the link in both
// directions, its memory, large products, and the link while the CPU attends.
#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include <CLI/App.hpp>
#include <fmt/format.h>

#include "apps/bench_common.h"
#include "apps/commands.h"
#include "apps/device_rates.h"
#include "core/error.h"
#include "core/units.h"
#include "kernels/device/cpu/probe.h"
#include "kernels/device/cpu/thread_pool.h"
#include "offload/choose_device.h"
#include "offload/memory/arena.h"

namespace sluice::apps {
namespace {

using kernels::Stream;
using kernels::StreamPriority;

struct BenchDeviceFlags {
  std::string device = "cuda";
  int threads = std::max(1, usable_cpus() - 1);
  int rounds = 7;
};

constexpr std::int64_t kHostBytes = 4_GiB;
constexpr std::int64_t kDeviceBytes = 8_GiB;

/// Seconds of the device for what `enqueue` puts on the stream.
class Timer {
 public:
  template <class Enqueue>
  double seconds(Stream& stream, const Enqueue& enqueue) {
    ++step_;
    stream.begin_step(step_);
    enqueue();
    stream.end_step(step_);
    const kernels::StepSpan span = stream.await_step(step_);
    return span.end_sec - span.start_sec;
  }

 private:
  std::int64_t step_ = 0;
};

/// Bytes per second of all threads reading `memory`.
double read_rate(std::span<const std::byte> memory, kernels::ThreadPool& pool) {
  const auto start = std::chrono::steady_clock::now();
  kernels::read_all(memory, pool);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  return static_cast<double>(memory.size()) / seconds.count();
}

void print(const std::string& name, std::vector<double> values, double unit, const char* unit_name) {
  std::sort(values.begin(), values.end());
  fmt::print("{:<34} {} {}\n", name, rates_text({values}, unit), unit_name);
}

void run(const BenchDeviceFlags& options) {
  kernels::ThreadPool pool(options.threads);
  const std::unique_ptr<kernels::Device> device =
      offload::make_device(offload::parse_device(options.device), pool);
  SLUICE_CHECK(device->has_own_memory(), Code::kInvalidArgument, "the CPU device has no link to measure",
               "give --device cuda; `sluice bench attention` and `linear` measure the CPU");
  require_measuring_build();
  offload::MemoryBudget budget(PerTier<std::int64_t>{{kDeviceBytes, 2 * kHostBytes, 0}});
  offload::Arena host(budget.reserve(Tier::kCpu, kHostBytes, "host"), options.threads, *device);
  const WorkingMemory cpu_work(kHostBytes, options.threads);
  offload::Arena gpu(budget.reserve(Tier::kGpu, kDeviceBytes, "device"), 1, *device);
  std::byte* const h = host.memory().data();
  std::byte* const d = gpu.memory().data();
  const auto workspace_bytes = static_cast<std::size_t>(kernels::workspace_bytes(device->kind()));
  const auto workspace = gpu.memory().last(workspace_bytes);
  const auto up = device->make_stream(StreamPriority::kBulk, {});
  const auto down = device->make_stream(StreamPriority::kBulk, {});
  const auto compute = device->make_stream(StreamPriority::kBulk, workspace);
  compute->bind_thread();
  fmt::print("{}\n{}\n", device->description(), machine_text(options.threads));

  Timer up_timer;
  Timer down_timer;
  Timer compute_timer;
  const auto pieces = [](Stream& stream, std::byte* to, const std::byte* from, std::int64_t piece,
                         std::int64_t total) {
    for (std::int64_t at = 0; at < total; at += piece) stream.copy(to + at, from + at, piece);
  };
  const auto h2d = [&](std::int64_t piece, std::int64_t total) {
    return static_cast<double>(total) / up_timer.seconds(*up, [&] { pieces(*up, d, h, piece, total); });
  };
  const auto d2h = [&](std::int64_t piece, std::int64_t total) {
    return static_cast<double>(total) / down_timer.seconds(*down, [&] { pieces(*down, h, d, piece, total); });
  };
  const auto measure = [&](const std::string& name, auto body) {
    body();  // warm-up
    std::vector<double> values(static_cast<std::size_t>(options.rounds));
    for (double& value : values) value = body();
    print(name, values, 1e9, "GB/s");
  };

  measure("h2d pinned, 32 MiB pieces", [&] { return h2d(32_MiB, kHostBytes); });
  measure("h2d pinned, 1 MiB pieces", [&] { return h2d(1_MiB, kHostBytes / 4); });
  measure("h2d pinned, 64 KiB pieces", [&] { return h2d(64_KiB, kHostBytes / 32); });
  measure("d2h pinned, 32 MiB pieces", [&] { return d2h(32_MiB, kHostBytes); });
  measure("h2d while d2h runs", [&] {
    pieces(*down, h + kHostBytes / 2, d + kHostBytes, 32_MiB, kHostBytes / 2);
    pieces(*down, h + kHostBytes / 2, d + kHostBytes, 32_MiB, kHostBytes / 2);
    const double rate = h2d(32_MiB, kHostBytes / 2);
    down->synchronize();
    return rate;
  });
  measure("device copy, read plus written", [&] {
    const double sec =
        compute_timer.seconds(*compute, [&] { compute->copy(d, d + kHostBytes, kHostBytes / 2); });
    return static_cast<double>(kHostBytes) / sec;
  });
  measure("host read", [&] { return read_rate(cpu_work.bytes(), pool); });
  const DeviceRates rates = measure_device_rates(*device, options.threads, options.rounds);
  print("h2d while the CPU reads", rates.h2d_bytes_per_sec, 1e9, "GB/s");
  print("host read while h2d runs", rates.host_read_bytes_per_sec, 1e9, "GB/s");
  print("product of 8192 cubed, fp16", rates.flops, 1e12, "TFLOP/s");
}

}  // namespace

void add_bench_device(CLI::App& bench) {
  auto options = std::make_shared<BenchDeviceFlags>();
  CLI::App* command = bench.add_subcommand("device", "A CUDA device: link, memory and products");
  command->add_option("--device", options->device, "cuda or cuda:N")->capture_default_str();
  command->add_option("--threads", options->threads, "Threads that read host memory")->capture_default_str();
  command->add_option("--rounds", options->rounds, "Measured rounds; the median is reported")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->callback([options] { run(*options); });
}

}  // namespace sluice::apps
