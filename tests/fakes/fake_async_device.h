// A device whose memory is its own and whose streams work later, each on a thread of its own: what a CUDA
// device does to those who wait for it, with scripted delays and failures, on a machine without a GPU. It
// knows no kernels; operators are stood in for by what a test enqueues.
//
// Misuse that a real device would pass over in silence throws Error{kInternal}: waiting for a step that was
// not enqueued, more than kMaxStepsAhead unfinished steps, steps out of order.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernels/device/device.h"

namespace sluice::kernels::fakes {

/// How a scripted failure goes on: a sticky one breaks the device, so that every later call on any of its
/// streams fails too, as after a kernel's illegal access.
enum class Fault : std::uint8_t { kOnce, kSticky };

struct FakeDeviceScript {
  std::int64_t free_bytes = std::int64_t{1} << 30;
  bool allocation_fails = false;                           ///< whatever free_bytes says
  std::int64_t most_pinned_bytes = std::int64_t{1} << 62;  ///< more in one piece is refused
  std::uint64_t seed = 1;
  std::chrono::microseconds jitter{0};  ///< one step in four takes up to this much longer
  double clock_skew_sec = 0;            ///< of the times that await_step gives
};

class FakeAsyncStream;

class FakeAsyncDevice final : public Device {
 public:
  explicit FakeAsyncDevice(const FakeDeviceScript& script = {});
  ~FakeAsyncDevice() override;

  DeviceKind kind() const override { return DeviceKind::kCuda; }
  std::string description() const override { return "fake device"; }
  bool has_own_memory() const override { return true; }
  std::int64_t free_bytes() const override;
  DeviceMemory allocate(std::int64_t bytes) override;
  std::unique_ptr<DeviceResource> pin(std::span<std::byte> host) override;
  /// The device outlives its streams.
  std::unique_ptr<Stream> make_stream(StreamPriority priority, std::span<std::byte> workspace) override;
  std::unique_ptr<FakeAsyncStream> make_fake_stream();

  /// "allocate 8192", "pin 4096", "unpin", "free", ... in order.
  std::vector<std::string> log() const;

  struct Shared;  // with the streams and the resources

 private:
  const std::shared_ptr<Shared> shared_;
  std::uint64_t num_streams_ = 0;
};

class FakeAsyncStream final : public Stream {
 public:
  FakeAsyncStream(std::shared_ptr<FakeAsyncDevice::Shared> device, std::uint64_t seed);
  /// Gives up what has not run.
  ~FakeAsyncStream() override;

  // What the test scripts, before the step is enqueued.

  /// The step fails on the device: its await_step, or that and whatever comes later, throws Error{kDevice}.
  void fail_step(std::int64_t seq, Fault fault) { failing_steps_[seq] = fault; }
  /// copy, copy_rows and fill in this step throw Error{kDevice}.
  void fail_enqueue(std::int64_t seq) { failing_enqueue_ = seq; }
  /// bind_thread throws Error{kDevice}.
  void fail_bind() { bind_fails_ = true; }

  /// Stands for a kernel: runs after what was enqueued before it.
  void enqueue(std::function<void()> work);

  void copy(std::byte* to, const std::byte* from, std::int64_t bytes) override;
  void copy_rows(std::byte* to, std::int64_t to_stride, const std::byte* from, std::int64_t from_stride,
                 std::int64_t row_bytes, std::int64_t rows) override;
  void fill(std::span<std::byte> memory, std::byte value) override;
  void bind_thread() override;
  bool asynchronous() const override { return true; }
  void begin_step(std::int64_t seq) override;
  void end_step(std::int64_t seq) override;
  void wait_for_step(const Stream& other, std::int64_t seq) override;
  bool is_step_done(std::int64_t seq) override;
  StepSpan await_step(std::int64_t seq) override;
  void synchronize() override;

  struct Queue;  // with the worker and the streams that wait for this one

 private:
  void check_enqueue() const;

  const std::shared_ptr<FakeAsyncDevice::Shared> device_;
  const std::shared_ptr<Queue> queue_;
  // Written before the run, then read by the thread that enqueues.
  std::map<std::int64_t, Fault> failing_steps_;
  std::int64_t failing_enqueue_ = -1;
  bool bind_fails_ = false;
  std::int64_t current_step_ = 0;  // enqueueing thread only
};

}  // namespace sluice::kernels::fakes
