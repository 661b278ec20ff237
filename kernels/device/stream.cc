#include "kernels/device/stream.h"

#include "core/error.h"

namespace sluice::kernels {

void check_operand(const Stream& stream, const void* data, std::int64_t bytes) {
  const std::span<const std::byte> arena = stream.operand_arena();
  if (arena.empty() || bytes == 0) return;
  const auto* first = static_cast<const std::byte*>(data);
  SLUICE_CHECK(first >= arena.data() && first + bytes <= arena.data() + arena.size(), Code::kInternal,
               fmt::format("an operand of {} bytes lies outside the memory tier of its lane", bytes),
               "please report this with the command line");
}

}  // namespace sluice::kernels
