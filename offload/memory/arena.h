// One tier's memory: a single allocation, made once, handed out front to back and freed as a whole. Not
// thread-safe: it is carved up at start. Blocks are kPageAlign-aligned, so that O_DIRECT transfers land in
// them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>

#include "core/tier.h"
#include "kernels/device/device.h"
#include "offload/memory/budget.h"

namespace sluice::offload {

class Arena {
 public:
  /// Maps `reservation.bytes()`, rounded up to kPageAlign, of zeroed anonymous memory, aligned and advised
  /// for huge pages. `touch_threads` threads touch it, so that the machine's refusal comes now and not in the
  /// run; 0 leaves that to the first use. Throws Error{kOutOfMemory} with the numbers when the system
  /// refuses.
  Arena(Reservation reservation, int touch_threads);
  /// The same for a run on `device`: the GPU tier is its own memory, if it has any, and the CPU tier, but for
  /// its first `pageable_bytes`, is made fit for its transfers. Where the device refuses that, the next
  /// number is tried, and after the last one nothing is; it says so.
  Arena(Reservation reservation, int touch_threads, kernels::Device& device,
        std::initializer_list<std::int64_t> pageable_bytes = {0});
  Arena(Arena&&) noexcept;
  Arena& operator=(Arena&&) noexcept;
  ~Arena();

  /// The next `bytes`, rounded up to kPageAlign. Throws Error{kInternal} past the end: the plan was wrong.
  std::span<std::byte> take(std::int64_t bytes, const std::string& what);

  Tier tier() const { return reservation_.tier(); }
  std::span<std::byte> memory() const { return memory_; }
  std::int64_t taken_bytes() const { return taken_; }

 private:
  explicit Arena(Reservation reservation);                  // maps, touches nothing
  Arena(Reservation reservation, kernels::Device& device);  // of the device's own memory
  void pin(kernels::Device& device, std::initializer_list<std::int64_t> pageable_bytes);
  void unmap() noexcept;

  Reservation reservation_;
  std::unique_ptr<kernels::DeviceResource> device_memory_;  // in place of a mapping
  std::span<std::byte> memory_;
  std::unique_ptr<kernels::DeviceResource> pinned_;
  std::int64_t taken_ = 0;
};

}  // namespace sluice::offload
