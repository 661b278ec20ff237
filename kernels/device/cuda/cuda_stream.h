// A stream of a CUDA device. One thread enqueues; any thread may await a step.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "core/mutex.h"
#include "kernels/device/cuda/handle.h"
#include "kernels/device/device.h"
#include "kernels/device/step_clock.h"

namespace sluice::kernels {

class FillAhead;
class LinearPaths;
class LinearPlans;

class CudaStream : public Stream {
 public:
  /// An event in the past and its time, from which all streams of a device count.
  struct Origin {
    cudaEvent_t event = nullptr;
    double steady_sec = 0;
  };
  /// For the current device. The origin's event and the cuBLASLt handle outlive the stream; `workspace` as in
  /// Device::make_stream.
  CudaStream(StreamPriority priority, const Origin& origin, cublasLtHandle_t blas,
             std::span<std::byte> workspace);
  /// Over a stream of somebody else, which outlives this one: for products alone, without steps and uploads.
  /// Give it a workspace before the first; `counters` are kCounterBytes, zero.
  CudaStream(cudaStream_t borrowed, cublasLtHandle_t blas, std::span<std::byte> counters);
  ~CudaStream() override;

  // What operators use.

  cudaStream_t raw() const { return raw_; }
  cublasLtHandle_t blas() const { return blas_; }
  int num_multiprocessors() const { return num_multiprocessors_; }
  int compute_capability() const { return compute_capability_; }  ///< 10 * major + minor
  /// Device memory that one operator uses at a time: stream order keeps its users apart.
  std::span<std::byte> workspace() const { return workspace_; }
  /// Device memory for FusedKernel::run, whose users leave it zero.
  std::span<std::byte> counters() const { return counters_; }
  /// Other memory, for the operators enqueued from here on: as much as these need.
  void set_workspace(std::span<std::byte> workspace) { workspace_ = workspace; }
  /// The matrix products of this stream, planned (kernels/device/cuda/linear_plans.h).
  LinearPlans& linear_plans() { return *linear_plans_; }
  /// Which kernels take products over encoded weights on this device (kernels/ops/linear_paths_cuda.h).
  const LinearPaths& linear_paths() const { return *linear_paths_; }
  /// Others than those measured: for tests.
  void set_linear_paths(std::unique_ptr<const LinearPaths> paths);
  /// Gets the stream beside this one (kernels/device/cuda/fill_ahead.h) ready to fill the halves of `memory`.
  /// Inside a step its work may begin when the step does, ahead of what the step has enqueued so far: it may
  /// read only what was there before.
  FillAhead& start_fills(std::span<std::byte> memory);
  BatchInvariance batch_invariance() const { return batch_invariance_; }
  /// Whether the next kernel may be launched by kernels/device/cuda/launch.cuh before those ahead of it have
  /// ended.
  bool take_overlap() { return std::exchange(may_overlap_, overlaps_); }
  /// For a kernel that writes what later ones read before they wait: the next launch comes after its end.
  void end_overlap() { may_overlap_ = false; }
  /// Copies `bytes` (at most kMaxUpload) to where kernels of this stream can read them, and returns that
  /// address, aligned to 16. Work enqueued before the step's end, or before synchronize, may read it. Uploads
  /// between steps belong to the next step; where so many add up that they fill the memory, only work that
  /// reads the last three may still be enqueued. Throws Error{kInternal} if a step asks for too much.
  const std::byte* upload(std::span<const std::byte> bytes);
  static constexpr std::int64_t kMaxUpload = std::int64_t{1} << 20;

  // Stream.

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
  void set_batch_invariance(BatchInvariance invariance) override { batch_invariance_ = invariance; }

 private:
  // Four times as many events as steps in flight: a waiter that was overtaken still finds its event.
  static constexpr std::int64_t kEvents = 4 * kMaxStepsAhead;
  struct StepEvents {
    UniqueEvent start, end;
  };
  /// What multiplies on this device: for streams that operators use.
  void prepare_products();
  StepEvents& events(std::int64_t seq) { return events_[static_cast<std::size_t>(seq % kEvents)]; }

  UniqueStream stream_;  // empty if borrowed
  cudaStream_t raw_ = nullptr;
  const Origin origin_;
  int ordinal_ = 0;
  const cublasLtHandle_t blas_;
  std::span<std::byte> workspace_, counters_;
  int num_multiprocessors_ = 0, compute_capability_ = 0;
  std::vector<StepEvents> events_;
  Mutex clock_mutex_;
  StepClock clock_ SLUICE_GUARDED_BY(clock_mutex_);
  const std::unique_ptr<LinearPlans> linear_plans_;
  // Streams with a workspace only.
  std::unique_ptr<const LinearPaths> linear_paths_;
  std::unique_ptr<FillAhead> fill_ahead_;
  BatchInvariance batch_invariance_ = BatchInvariance::kOff;
  bool overlaps_ = false;  // device and build know programmatic dependent launch
  bool may_overlap_ = false;

  // Uploads: a ring of pinned host memory that kernels read in place. Where each step's bytes start tells
  // what is still in use. By the enqueueing thread only.
  static constexpr std::int64_t kUploadBytes = 8 * kMaxUpload;
  UniqueHostMemory upload_memory_;  // streams with a workspace only
  std::int64_t upload_end_ = 0;     // bytes ever taken; the place is this modulo kUploadBytes
  std::int64_t open_begin_ = 0;     // what was taken from here on belongs to no ended step
  static constexpr std::int64_t kNoStep = -1;
  std::vector<std::int64_t> upload_begin_;  // by step modulo kEvents: where an ended step's bytes start
  std::int64_t oldest_upload_ = 1, last_ended_ = 0;  // steps that may still hold bytes
  bool in_step_ = false;
  std::int64_t open_step_ = 0;  // if in one
};

/// The stream as its CUDA self; `stream.kind()` is kCuda.
inline CudaStream& as_cuda(Stream& stream) { return static_cast<CudaStream&>(stream); }

}  // namespace sluice::kernels
