#include "kernels/device/stream.h"

#include <cstring>

#include "core/error.h"

namespace sluice::kernels {

void Stream::copy(std::byte* to, const std::byte* from, std::int64_t bytes) {
  if (bytes > 0) std::memcpy(to, from, static_cast<std::size_t>(bytes));
}

void Stream::copy_rows(std::byte* to, std::int64_t to_stride, const std::byte* from, std::int64_t from_stride,
                       std::int64_t row_bytes, std::int64_t rows) {
  for (std::int64_t row = 0; row < rows; ++row) {
    std::memcpy(to + row * to_stride, from + row * from_stride, static_cast<std::size_t>(row_bytes));
  }
}

void Stream::fill(std::span<std::byte> memory, std::byte value) {
  if (!memory.empty()) std::memset(memory.data(), static_cast<int>(value), memory.size());
}

void check_operand(const Stream& stream, const void* data, std::int64_t bytes) {
  const std::span<const std::byte> arena = stream.operand_arena();
  if (arena.empty() || bytes == 0) return;
  const auto* first = static_cast<const std::byte*>(data);
  SLUICE_CHECK(first >= arena.data() && first + bytes <= arena.data() + arena.size(), Code::kInternal,
               fmt::format("an operand of {} bytes lies outside the memory tier of its lane", bytes),
               "please report this with the command line");
}

}  // namespace sluice::kernels
