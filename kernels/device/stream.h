// A stream: where operators and copies are enqueued, in order. Passed to every operator, never fetched from a
// global. On the CPU device work is done, on the calling thread and its pool, before the call returns; on a
// CUDA device it finishes later (kernels/device/cuda/cuda_stream.h). One thread enqueues on a stream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace sluice::kernels {

class ThreadPool;

enum class DeviceKind : std::uint8_t { kCpu, kCuda };

/// When a step ran, in seconds of std::chrono::steady_clock.
struct StepSpan {
  double start_sec = 0, end_sec = 0;
};

/// Whether the bits of a row of an operator's result may depend on how many other rows are in the call. kOn
/// costs speed on a CUDA stream; a CPU stream is always invariant.
enum class BatchInvariance : std::uint8_t { kOff, kOn };

class Stream {
 public:
  /// A CPU stream over `pool` (not owned).
  explicit Stream(ThreadPool& pool) : kind_(DeviceKind::kCpu), pool_(&pool) {}
  virtual ~Stream() = default;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  DeviceKind kind() const { return kind_; }
  /// CPU streams only.
  ThreadPool& pool() const { return *pool_; }

  /// Between any two tiers. The bytes stay as they are until the copy is done.
  virtual void copy(std::byte* to, const std::byte* from, std::int64_t bytes);
  /// `rows` runs of `row_bytes`, whose starts lie `to_stride` and `from_stride` bytes apart.
  virtual void copy_rows(std::byte* to, std::int64_t to_stride, const std::byte* from,
                         std::int64_t from_stride, std::int64_t row_bytes, std::int64_t rows);
  virtual void fill(std::span<std::byte> memory, std::byte value);

  // Steps order the streams of an asynchronous device among each other. `seq` counts a stream's steps from 1;
  // at most kMaxStepsAhead are unfinished. On a CPU stream there is nothing to order.
  static constexpr std::int64_t kMaxStepsAhead = 256;
  /// Called once on each thread that is going to use the stream.
  virtual void bind_thread() {}
  /// False: work is done when the call that enqueues it returns.
  virtual bool asynchronous() const { return false; }
  /// Work enqueued from here to end_step is step `seq`. Numbers may be left out, and nobody waits for those.
  virtual void begin_step(std::int64_t /*seq*/) {}
  virtual void end_step(std::int64_t /*seq*/) {}
  /// What is enqueued here from now on starts after step `seq` of `other`, which has been enqueued.
  virtual void wait_for_step(const Stream& /*other*/, std::int64_t /*seq*/) {}
  /// Whether step `seq` is done. Throws Error{kDevice}.
  virtual bool is_step_done(std::int64_t /*seq*/) { return true; }
  /// Blocks the calling thread, which may be any one, until step `seq` is done. Throws Error{kDevice}.
  virtual StepSpan await_step(std::int64_t /*seq*/) { return {}; }
  /// Blocks until all enqueued work is done. Throws Error{kDevice}. Not for use inside a run.
  virtual void synchronize() {}

  /// For the operators enqueued from here on.
  virtual void set_batch_invariance(BatchInvariance /*invariance*/) {}

  /// From now on every operand must lie inside `arena`; an operator given another address throws
  /// Error{kInternal}. This is how the CPU device proves that the tiers are really disjoint.
  void restrict_operands(std::span<const std::byte> arena) { arena_ = arena; }
  std::span<const std::byte> operand_arena() const { return arena_; }

 protected:
  explicit Stream(DeviceKind kind) : kind_(kind), pool_(nullptr) {}

 private:
  DeviceKind kind_;
  ThreadPool* pool_;
  std::span<const std::byte> arena_;  // empty: not restricted
};

/// Throws Error{kInternal} if [data, data + bytes) is not inside the stream's operand arena.
void check_operand(const Stream& stream, const void* data, std::int64_t bytes);

}  // namespace sluice::kernels
