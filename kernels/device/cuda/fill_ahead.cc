#include "kernels/device/cuda/fill_ahead.h"

namespace sluice::kernels {
namespace {

constexpr std::size_t kAlign = 256;

UniqueEvent make_event() {
  cudaEvent_t event = nullptr;
  CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  return UniqueEvent(event);
}

}  // namespace

FillAhead::FillAhead(cudaStream_t reader) : reader_(reader), reached_(make_event()) {
  cudaStream_t stream = nullptr;
  CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  stream_.reset(stream);
  for (Buffer& buffer : buffers_) {
    buffer.filled = make_event();
    buffer.read = make_event();
  }
}

void FillAhead::start(std::span<std::byte> memory, cudaEvent_t inputs) {
  // Other memory may be in use by anything that the reader has been given.
  const bool is_other = memory.data() != memory_.data() || memory.size() != memory_.size();
  memory_ = memory;
  if (is_other || inputs == nullptr) {
    CUDA_CHECK(cudaEventRecord(reached_.get(), reader_));
    inputs = reached_.get();
    for (Buffer& buffer : buffers_) buffer.in_use = false;  // whoever read them comes before this
  }
  CUDA_CHECK(cudaStreamWaitEvent(stream(), inputs, 0));
}

std::span<std::byte> FillAhead::next_buffer() {
  current_ = 1 - current_;
  const Buffer& buffer = buffers_[current_];
  if (buffer.in_use) CUDA_CHECK(cudaStreamWaitEvent(stream(), buffer.read.get(), 0));
  const std::size_t half = memory_.size() / 2 / kAlign * kAlign;
  return memory_.subspan(current_ * half, half);
}

void FillAhead::filled() {
  CUDA_CHECK(cudaEventRecord(buffers_[current_].filled.get(), stream()));
  CUDA_CHECK(cudaStreamWaitEvent(reader_, buffers_[current_].filled.get(), 0));
}

void FillAhead::read() {
  CUDA_CHECK(cudaEventRecord(buffers_[current_].read.get(), reader_));
  buffers_[current_].in_use = true;
}

}  // namespace sluice::kernels
