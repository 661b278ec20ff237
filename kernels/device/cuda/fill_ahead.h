// A stream of a CUDA device beside another one: it fills two buffers in turn, so that one is filled while the
// other stream's work reads the other. One thread enqueues on both. Outside steps the work of a whole call of
// linear may be captured in a graph: all events that it waits for are recorded in it.
#pragma once

#include <array>
#include <cstddef>
#include <span>

#include "kernels/device/cuda/handle.h"

namespace sluice::kernels {

class FillAhead {
 public:
  /// For the current device, beside `reader`, which outlives this.
  explicit FillAhead(cudaStream_t reader);

  /// The buffers are the halves of `memory` from now on; what is enqueued by `fill` starts after `inputs`,
  /// or, if that is null, after all that the reader has been given so far.
  void start(std::span<std::byte> memory, cudaEvent_t inputs);
  /// The next buffer, at a multiple of 256 bytes from the start of the memory. What is enqueued on `stream`
  /// from now on starts once nobody reads the buffer any more.
  std::span<std::byte> next_buffer();
  cudaStream_t stream() const { return stream_.get(); }
  /// What the reader is given from now on finds the buffer filled.
  void filled();
  /// All that reads the buffer has been enqueued on the reader.
  void read();

 private:
  struct Buffer {
    UniqueEvent filled, read;
    bool in_use = false;  ///< `read` has been recorded
  };

  const cudaStream_t reader_;
  UniqueStream stream_;
  UniqueEvent reached_;
  std::array<Buffer, 2> buffers_;
  std::span<std::byte> memory_;
  std::size_t current_ = 0;
};

}  // namespace sluice::kernels
