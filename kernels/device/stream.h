// A stream: where an operator is enqueued, in order. Passed to every operator, never fetched from a global.
// On the CPU device an operator runs on the calling thread and its pool before it returns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace sluice::kernels {

class ThreadPool;

enum class DeviceKind : std::uint8_t { kCpu, kCuda };

class Stream {
 public:
  /// A CPU stream over `pool` (not owned).
  explicit Stream(ThreadPool& pool) : kind_(DeviceKind::kCpu), pool_(&pool) {}

  DeviceKind kind() const { return kind_; }
  ThreadPool& pool() const { return *pool_; }

  /// From now on every operand must lie inside `arena`; an operator given another address throws
  /// Error{kInternal}. This is how the CPU device proves that the tiers are really disjoint.
  void restrict_operands(std::span<const std::byte> arena) { arena_ = arena; }
  std::span<const std::byte> operand_arena() const { return arena_; }

 private:
  DeviceKind kind_;
  ThreadPool* pool_;
  std::span<const std::byte> arena_;  // empty: not restricted
};

/// Throws Error{kInternal} if [data, data + bytes) is not inside the stream's operand arena.
void check_operand(const Stream& stream, const void* data, std::int64_t bytes);

}  // namespace sluice::kernels
