// Which registered piece of memory, if any, holds an address range. Not thread-safe.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace sluice::offload {

class RegisteredMemory {
 public:
  explicit RegisteredMemory(int capacity) { pieces_.reserve(static_cast<std::size_t>(capacity)); }
  /// `memory` is disjoint from what was added before and has the number `index`.
  void add(std::span<std::byte> memory, int index) {
    const auto at = std::upper_bound(pieces_.begin(), pieces_.end(), memory.data(), starts_after);
    pieces_.insert(at, {memory.data(), memory.data() + memory.size(), index});
    bytes_ += static_cast<std::int64_t>(memory.size());
  }
  /// The number of the piece that holds all of [data, data + bytes), or -1.
  int find(const std::byte* data, std::int64_t bytes) const {
    const auto after = std::upper_bound(pieces_.begin(), pieces_.end(), data, starts_after);
    if (after == pieces_.begin()) return -1;
    const Piece& piece = *(after - 1);
    return std::less_equal<>{}(data + bytes, piece.end) ? piece.index : -1;
  }
  std::int64_t bytes() const { return bytes_; }
  int size() const { return static_cast<int>(pieces_.size()); }

 private:
  struct Piece {
    const std::byte* begin;
    const std::byte* end;
    int index;
  };
  static bool starts_after(const std::byte* data, const Piece& piece) {
    return std::less<>{}(data, piece.begin);
  }

  std::vector<Piece> pieces_;  // by address
  std::int64_t bytes_ = 0;
};

}  // namespace sluice::offload
