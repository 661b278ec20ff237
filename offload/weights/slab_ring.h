// Pinned slabs through which pageable bytes go to a device: a few threads fill one while the device copies
// from the others. Used by the one thread that enqueues on the stream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/device/cpu/thread_pool.h"
#include "kernels/device/stream.h"

namespace sluice::offload {

class SlabRing {
 public:
  /// `memory` is pinned and outlives the ring; it is cut into slabs of `slab_bytes`, of which there is at
  /// least one.
  SlabRing(std::span<std::byte> memory, std::int64_t slab_bytes);

  /// Brings `from`, at most a slab, to `to` within the stream's open step `seq`, which rises from call to
  /// call. Blocks until the copy is enqueued. Throws Error{kDevice}.
  void send(std::byte* to, std::span<const std::byte> from, std::int64_t seq, kernels::Stream& stream);

 private:
  const std::span<std::byte> memory_;
  const std::int64_t slab_bytes_;
  kernels::ThreadPool pool_;
  std::vector<std::int64_t> last_step_;  // by slab: the step that copied from it last, or 0
  std::size_t next_ = 0;
};

}  // namespace sluice::offload
