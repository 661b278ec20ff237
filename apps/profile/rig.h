// What the parts of `sluice profile` measure with: a device with its streams, memory on both sides, and
// clocks. One thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "apps/profile/rounds.h"
#include "kernels/device/cpu/thread_pool.h"
#include "kernels/device/device.h"
#include "offload/engine.h"
#include "offload/memory/arena.h"

namespace sluice::apps {

struct ProfileOptions {
  std::string device = "auto";
  std::string disk_dir;  ///< empty: the temporary folder
  int threads = 0;       ///< of the CPU; 0: as a run takes them
  int rounds = 5;
  std::int64_t memory_bytes =
      0;  ///< host memory to measure with; 0: 4 GiB, at most a quarter of what is free
  std::int64_t disk_bytes = std::int64_t{2} << 30;  ///< of the file; 0 leaves the disk out
};

class Rig {
 public:
  explicit Rig(const ProfileOptions& options);

  /// Seconds of what `enqueue` puts on the stream, from its start on the device to its end.
  double seconds(kernels::Stream& stream, const std::function<void()>& enqueue);
  /// Seconds of `count` steps, numbered from 0, that the device starts once it is done with `ahead`, in a
  /// step of its own: long enough, it hides what enqueueing them takes. At most kMaxStepsAhead - 1.
  double seconds_behind(kernels::Stream& stream, const std::function<void()>& ahead, int count,
                        const std::function<void(int)>& enqueue);
  /// `body` returns a rate; one round to warm up.
  Measured measure(const std::function<double()>& body) const;
  /// The same of several, in `rounds` that each go through all of them: a slow second of a machine that is
  /// shared falls on all alike.
  std::vector<Measured> measure_in_turn(std::span<const std::function<double()>> bodies, int rounds) const;

  bool is_cuda() const { return device->has_own_memory(); }
  DType activation_dtype() const { return is_cuda() ? DType::kF16 : DType::kF32; }

  const ProfileOptions options;
  const offload::DeviceChoice choice;
  kernels::ThreadPool pool;
  const std::unique_ptr<kernels::Device> device;
  double pin_sec = 0;  ///< mapping, touching and pinning `host`

 private:
  offload::MemoryBudget budget_;
  std::optional<offload::Arena> host_arena_, gpu_arena_;

 public:
  std::span<std::byte> host, gpu;  ///< gpu: the GPU tier, without the workspace of `compute`
  std::unique_ptr<kernels::Stream> up, down, compute, cpu;

 private:
  /// Returns the step's number.
  std::int64_t enqueue_step(kernels::Stream& stream, const std::function<void()>& enqueue);
  std::int64_t step_ = 0;
};

/// A body does one piece of work and returns how much: what it does a second, in a loop of about `sec`, once
/// at least.
double run_for(double sec, const std::function<double()>& body);
/// The same once the body has run, to warm up.
double run_alone(double sec, const std::function<double()>& body);

/// Two loops at once, each on a thread of its own.
struct Together {
  double first = 0, second = 0;
};
Together run_together(double sec, const std::function<double()>& first,
                      const std::function<double()>& second);

}  // namespace sluice::apps
