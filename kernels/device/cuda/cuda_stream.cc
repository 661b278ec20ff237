#include "kernels/device/cuda/cuda_stream.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "core/error.h"
#include "core/units.h"
#include "kernels/device/cuda/fill_ahead.h"
#include "kernels/device/cuda/launches_overlap.h"
#include "kernels/device/cuda/linear_plans.h"
#include "kernels/ops/linear_paths_cuda.h"

namespace sluice::kernels {
namespace {

UniqueEvent make_event(unsigned flags) {
  cudaEvent_t event = nullptr;
  CUDA_CHECK(cudaEventCreateWithFlags(&event, flags));
  return UniqueEvent(event);
}

double seconds_between(cudaEvent_t from, cudaEvent_t to) {
  float milliseconds = 0;
  CUDA_CHECK(cudaEventElapsedTime(&milliseconds, from, to));
  return static_cast<double>(milliseconds) * 1e-3;
}

}  // namespace

CudaStream::CudaStream(StreamPriority priority, const Origin& origin, cublasLtHandle_t blas,
                       std::span<std::byte> workspace)
    : Stream(DeviceKind::kCuda),
      origin_(origin),
      blas_(blas),
      workspace_(workspace.first(std::min(workspace.size(), std::size_t{kScratchBytes}))),
      counters_(workspace.subspan(workspace_.size())),
      clock_(origin.steady_sec, kEvents - kMaxStepsAhead),
      linear_plans_(std::make_unique<LinearPlans>(blas)) {
  int lowest = 0;
  int highest = 0;
  CUDA_CHECK(cudaDeviceGetStreamPriorityRange(&lowest, &highest));
  cudaStream_t stream = nullptr;
  CUDA_CHECK(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking,
                                          priority == StreamPriority::kUrgent ? highest : lowest));
  stream_.reset(stream);
  raw_ = stream;
  CUDA_CHECK(cudaGetDevice(&ordinal_));
  CUDA_CHECK(cudaDeviceGetAttribute(&num_multiprocessors_, cudaDevAttrMultiProcessorCount, ordinal_));
  events_.resize(static_cast<std::size_t>(kEvents));
  for (StepEvents& step : events_) {
    step.start = make_event(cudaEventDefault);
    step.end = make_event(cudaEventBlockingSync);  // a waiter sleeps: the cores belong to CPU attention
  }
  if (workspace.empty()) return;
  CUDA_CHECK(cudaMemsetAsync(counters_.data(), 0, counters_.size(), raw()));
  prepare_products();
  void* host = nullptr;
  const cudaError_t error =
      cudaHostAlloc(&host, static_cast<std::size_t>(kUploadBytes), cudaHostAllocDefault);
  if (error == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    throw Error(Code::kOutOfMemory,
                fmt::format("cpu memory: {} for the operators' tables could not be pinned",
                            format_bytes(kUploadBytes)),
                "raise the limit of locked memory (ulimit -l), or lower --cpu-memory");
  }
  CUDA_CHECK(error);
  upload_memory_.reset(host);
  upload_begin_.assign(static_cast<std::size_t>(kEvents), 0);
}

CudaStream::CudaStream(cudaStream_t borrowed, cublasLtHandle_t blas, std::span<std::byte> counters)
    : Stream(DeviceKind::kCuda),
      raw_(borrowed),
      blas_(blas),
      counters_(counters),
      clock_(0, kEvents - kMaxStepsAhead),
      linear_plans_(std::make_unique<LinearPlans>(blas)) {
  CUDA_CHECK(cudaGetDevice(&ordinal_));
  CUDA_CHECK(cudaDeviceGetAttribute(&num_multiprocessors_, cudaDevAttrMultiProcessorCount, ordinal_));
  prepare_products();
  overlaps_ = may_overlap_ = false;  // what its owner enqueued ahead knows nothing of it
}

void CudaStream::prepare_products() {
  fill_ahead_ = std::make_unique<FillAhead>(raw());
  cudaDeviceProp properties{};
  CUDA_CHECK(cudaGetDeviceProperties(&properties, ordinal_));
  compute_capability_ = 10 * properties.major + properties.minor;
  overlaps_ = may_overlap_ = detail::launches_overlap();
  linear_paths_ = std::make_unique<LinearPaths>(properties.name, compute_capability_, measured_linear_paths(),
                                                fused_kernels());
}

CudaStream::~CudaStream() {
  // The thread that destroys it may have used no device, and would start the first one. Who lends a stream
  // sees to that.
  if (stream_ != nullptr) {
    if (const cudaError_t error = cudaSetDevice(ordinal_); error != cudaSuccess)
      log_cuda_failure(error, "cudaSetDevice");
  }
  // Kernels under way may still read the upload ring.
  if (const cudaError_t error = cudaStreamSynchronize(raw()); error != cudaSuccess)
    log_cuda_failure(error, "cudaStreamSynchronize");
}

const std::byte* CudaStream::upload(std::span<const std::byte> bytes) {
  const auto size = static_cast<std::int64_t>(bytes.size());
  SLUICE_CHECK(size <= kMaxUpload && upload_memory_ != nullptr, Code::kInternal,
               fmt::format("an operator's tables have {}, a stream takes {}", format_bytes(size),
                           format_bytes(upload_memory_ ? kMaxUpload : 0)),
               "lower --gpu-batch-size");
  std::int64_t begin = align_up(upload_end_, 16);
  if (begin % kUploadBytes + size > kUploadBytes) begin = align_up(begin, kUploadBytes);
  // Ended steps give their bytes back in order; those of the open one must fit beside what is under way.
  for (; oldest_upload_ <= last_ended_; ++oldest_upload_) {
    const std::int64_t oldest_begin = upload_begin_[static_cast<std::size_t>(oldest_upload_ % kEvents)];
    if (oldest_begin == kNoStep) continue;
    if (begin + size - oldest_begin <= kUploadBytes) break;
    CUDA_CHECK(cudaEventSynchronize(events(oldest_upload_).end.get()));
  }
  if (begin + size - open_begin_ > kUploadBytes) {
    SLUICE_CHECK(!in_step_, Code::kInternal,
                 fmt::format("one step's tables exceed {}", format_bytes(kUploadBytes)),
                 "lower --gpu-batch-size");
    // Outside steps (tests and benches): what was enqueued ends here. The last uploads may be those of an
    // operator that has not launched yet; they lie just before `begin` and stay as they are.
    CUDA_CHECK(cudaStreamSynchronize(stream_.get()));
    open_begin_ = std::max(open_begin_, begin - kUploadBytes / 2);
  }
  std::byte* to = static_cast<std::byte*>(upload_memory_.get()) + begin % kUploadBytes;
  std::memcpy(to, bytes.data(), bytes.size());
  upload_end_ = begin + size;
  return to;
}

void CudaStream::set_linear_paths(std::unique_ptr<const LinearPaths> paths) {
  linear_paths_ = std::move(paths);
}

FillAhead& CudaStream::start_fills(std::span<std::byte> memory) {
  fill_ahead_->start(memory, in_step_ ? events(open_step_).start.get() : nullptr);
  return *fill_ahead_;
}

void CudaStream::copy(std::byte* to, const std::byte* from, std::int64_t bytes) {
  if (bytes <= 0) return;
  CUDA_CHECK(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDefault, raw()));
}

void CudaStream::copy_rows(std::byte* to, std::int64_t to_stride, const std::byte* from,
                           std::int64_t from_stride, std::int64_t row_bytes, std::int64_t rows) {
  if (row_bytes <= 0 || rows <= 0) return;
  CUDA_CHECK(cudaMemcpy2DAsync(to, static_cast<std::size_t>(to_stride), from,
                               static_cast<std::size_t>(from_stride), static_cast<std::size_t>(row_bytes),
                               static_cast<std::size_t>(rows), cudaMemcpyDefault, raw()));
}

void CudaStream::fill(std::span<std::byte> memory, std::byte value) {
  if (memory.empty()) return;
  CUDA_CHECK(cudaMemsetAsync(memory.data(), static_cast<int>(value), memory.size(), raw()));
}

void CudaStream::bind_thread() { CUDA_CHECK(cudaSetDevice(ordinal_)); }

void CudaStream::begin_step(std::int64_t seq) {
  in_step_ = true;
  open_step_ = seq;
  // At most kMaxStepsAhead steps are unfinished, so older ones hold nothing any more.
  oldest_upload_ = std::max(oldest_upload_, seq - kMaxStepsAhead);
  CUDA_CHECK(cudaEventRecord(events(seq).start.get(), raw()));
}

void CudaStream::end_step(std::int64_t seq) {
  CUDA_CHECK(cudaEventRecord(events(seq).end.get(), raw()));
  in_step_ = false;
  if (upload_begin_.empty()) return;
  // Its end comes after all work that was enqueued since the step before ended.
  for (std::int64_t skipped = std::max(last_ended_, seq - kEvents) + 1; skipped < seq; ++skipped)
    upload_begin_[static_cast<std::size_t>(skipped % kEvents)] = kNoStep;
  upload_begin_[static_cast<std::size_t>(seq % kEvents)] = open_begin_;
  open_begin_ = upload_end_;
  last_ended_ = seq;
}

void CudaStream::wait_for_step(const Stream& other, std::int64_t seq) {
  const auto& from = static_cast<const CudaStream&>(other);
  CUDA_CHECK(cudaStreamWaitEvent(raw(), from.events_[static_cast<std::size_t>(seq % kEvents)].end.get(), 0));
}

bool CudaStream::is_step_done(std::int64_t seq) {
  const cudaError_t state = cudaEventQuery(events(seq).end.get());
  if (state == cudaErrorNotReady) return false;
  CUDA_CHECK(state);
  return true;
}

StepSpan CudaStream::await_step(std::int64_t seq) {
  const StepEvents& step = events(seq);
  CUDA_CHECK(cudaEventSynchronize(step.end.get()));
  const double seen =
      std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  const MutexLock lock(clock_mutex_);
  const std::int64_t reference = clock_.reference(seq);
  const cudaEvent_t from = reference > 0 ? events(reference).end.get() : origin_.event;
  const double since = reference == seq ? 0 : seconds_between(from, step.end.get());
  const double end = clock_.end_of(seq, since, seen);
  return {end - seconds_between(step.start.get(), step.end.get()), end};
}

void CudaStream::synchronize() {
  CUDA_CHECK(cudaStreamSynchronize(raw()));
  if (!in_step_) open_begin_ = upload_end_;  // nobody reads them any more
}

}  // namespace sluice::kernels
