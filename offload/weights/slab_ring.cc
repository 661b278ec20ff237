#include "offload/weights/slab_ring.h"

#include <cstring>

#include "core/error.h"
#include "core/units.h"

namespace sluice::offload {
namespace {

// Four threads copy about as fast as a link of 32 GB/s; more would take cores from CPU attention.
constexpr int kThreads = 4;

}  // namespace

SlabRing::SlabRing(std::span<std::byte> memory, std::int64_t slab_bytes)
    : memory_(memory),
      slab_bytes_(slab_bytes),
      pool_(kThreads),
      last_step_(memory.size() / static_cast<std::size_t>(slab_bytes)) {
  SLUICE_ASSERT(!last_step_.empty());
}

void SlabRing::send(std::byte* to, std::span<const std::byte> from, std::int64_t seq,
                    kernels::Stream& stream) {
  SLUICE_ASSERT(std::ssize(from) <= slab_bytes_);
  const std::size_t slab = next_;
  next_ = (next_ + 1) % last_step_.size();
  if (last_step_[slab] > 0) stream.await_step(last_step_[slab]);
  std::byte* const bytes = memory_.data() + static_cast<std::int64_t>(slab) * slab_bytes_;
  pool_.parallel_for(std::ssize(from), 1_MiB, [&](std::int64_t begin, std::int64_t end) {
    std::memcpy(bytes + begin, from.data() + begin, static_cast<std::size_t>(end - begin));
  });
  last_step_[slab] = seq;
  stream.copy(to, bytes, std::ssize(from));
}

}  // namespace sluice::offload
