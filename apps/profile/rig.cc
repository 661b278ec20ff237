#include "apps/profile/rig.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <exception>
#include <random>
#include <thread>

#include "apps/bench_common.h"
#include "core/dtype.h"
#include "core/units.h"
#include "offload/choose_device.h"
#include "offload/memory/usable_memory.h"

namespace sluice::apps {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::int64_t kMostGpuBytes = 6_GiB;

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::int64_t host_bytes(const ProfileOptions& options, bool is_cuda) {
  constexpr std::int64_t kLeast = 128_MiB;  // two copies of 32 MiB in each half
  if (options.memory_bytes > 0) return std::max(kLeast, align_up(options.memory_bytes, 64_MiB));
  // On the CPU device both tiers lie in it.
  const std::int64_t most = std::min(4_GiB, offload::usable_host_bytes() / (is_cuda ? 4 : 8));
  return std::max(256_MiB, most / 64_MiB * 64_MiB);
}

int num_threads(const ProfileOptions& options, const offload::DeviceChoice& choice) {
  return options.threads > 0 ? options.threads : offload::default_threads(choice);
}

/// Random fp16 numbers: constant operands run faster than any model's.
void fill_half(std::span<std::byte> memory) {
  std::vector<Half> pattern(1 << 20);
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (Half& value : pattern) value = to_half(uniform(random));
  const std::size_t bytes = pattern.size() * sizeof(Half);
  for (std::size_t at = 0; at < memory.size(); at += bytes)
    std::memcpy(memory.data() + at, pattern.data(), std::min(bytes, memory.size() - at));
}

/// Each round through all bodies, which return rates, after one to warm up: [body][round].
std::vector<std::vector<double>> rounds_of(std::span<const std::function<double()>> bodies, int rounds) {
  std::vector<std::vector<double>> values(bodies.size());
  for (const auto& body : bodies) body();
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < bodies.size(); ++i) values[i].push_back(bodies[i]());
  }
  return values;
}

}  // namespace

Rig::Rig(const ProfileOptions& asked)
    : options(asked),
      choice(offload::choose_device(offload::parse_device(asked.device))),
      pool(num_threads(asked, choice)),
      device(offload::make_device(choice, pool)),
      budget_(PerTier<std::int64_t>{{INT64_MAX / 2, INT64_MAX / 2, 0}}) {
  const std::int64_t bytes = host_bytes(options, is_cuda());
  const auto start = Clock::now();
  host_arena_.emplace(budget_.reserve(Tier::kCpu, bytes, "host"), pool.num_threads(), *device);
  pin_sec = since(start);
  host = host_arena_->memory();
  const std::int64_t gpu_bytes =
      is_cuda() ? std::min(kMostGpuBytes, device->free_bytes() / 10 * 7) / 64_MiB * 64_MiB : bytes;
  gpu_arena_.emplace(budget_.reserve(Tier::kGpu, gpu_bytes, "device"), pool.num_threads(), *device);
  const auto workspace = static_cast<std::size_t>(kernels::workspace_bytes(device->kind()));
  gpu = gpu_arena_->memory().first(gpu_arena_->memory().size() - workspace);
  up = device->make_stream(kernels::StreamPriority::kBulk, {});
  down = device->make_stream(kernels::StreamPriority::kBulk, {});
  compute = device->make_stream(kernels::StreamPriority::kBulk, gpu_arena_->memory().last(workspace));
  cpu = std::make_unique<kernels::Stream>(pool);
  compute->bind_thread();
  fill_half(host);
  for (std::size_t at = 0; at < gpu.size(); at += host.size())
    up->copy(gpu.data() + at, host.data(), static_cast<std::int64_t>(std::min(host.size(), gpu.size() - at)));
  up->synchronize();
}

std::int64_t Rig::enqueue_step(kernels::Stream& stream, const std::function<void()>& enqueue) {
  stream.begin_step(++step_);
  enqueue();
  stream.end_step(step_);
  return step_;
}

double Rig::seconds(kernels::Stream& stream, const std::function<void()>& enqueue) {
  const auto start = Clock::now();
  const std::int64_t step = enqueue_step(stream, enqueue);
  if (!stream.asynchronous()) return since(start);
  const kernels::StepSpan span = stream.await_step(step);
  return span.end_sec - span.start_sec;
}

double Rig::seconds_behind(kernels::Stream& stream, const std::function<void()>& ahead, int count,
                           const std::function<void(int)>& enqueue) {
  const std::int64_t first = enqueue_step(stream, ahead);
  const auto start = Clock::now();
  std::int64_t last = first;
  for (int i = 0; i < count; ++i) last = enqueue_step(stream, [&] { enqueue(i); });
  if (!stream.asynchronous()) return since(start);
  const double begin_sec = stream.await_step(first).end_sec;
  return stream.await_step(last).end_sec - begin_sec;
}

Measured Rig::measure(const std::function<double()>& body) const {
  return median_of(rounds_of(std::span(&body, 1), options.rounds).front());
}

std::vector<Measured> Rig::measure_in_turn(std::span<const std::function<double()>> bodies,
                                           int rounds) const {
  return compare_rounds(rounds_of(bodies, rounds));
}

double run_for(double sec, const std::function<double()>& body) {
  const auto start = Clock::now();
  double done = 0;
  do {
    done += body();
  } while (since(start) < sec);
  return done / since(start);
}

double run_alone(double sec, const std::function<double()>& body) {
  body();
  return run_for(sec, body);
}

Together run_together(double sec, const std::function<double()>& first,
                      const std::function<double()>& second) {
  Together rates;
  std::atomic<int> ready{0};
  // Each goes on until both have measured: what is measured always has the other beside it.
  std::atomic<int> measured{0};
  std::array<std::exception_ptr, 2> failures;
  const auto loop = [&](const std::function<double()>& body, double& rate, std::exception_ptr& failure) {
    ++ready;
    while (ready.load() < 2) std::this_thread::yield();
    try {
      rate = run_for(sec, body);
      ++measured;
      while (measured.load() < 2) body();
    } catch (...) {
      failure = std::current_exception();
      measured = 2;  // the other need not go on
    }
  };
  {
    const std::jthread other([&] { loop(second, rates.second, failures[1]); });
    loop(first, rates.first, failures[0]);
  }
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
  return rates;
}

}  // namespace sluice::apps
