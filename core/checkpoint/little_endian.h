// Little-endian integers at any alignment, as containers store them. Pure functions, thread-safe.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace sluice {

static_assert(std::endian::native == std::endian::little, "checkpoint data is copied as it is");

template <class Integer>
Integer load_little_endian(const std::byte* from) {
  Integer value{};
  std::memcpy(&value, from, sizeof(value));
  return value;
}
inline std::uint16_t load_u16(const std::byte* from) { return load_little_endian<std::uint16_t>(from); }
inline std::uint32_t load_u32(const std::byte* from) { return load_little_endian<std::uint32_t>(from); }
inline std::uint64_t load_u64(const std::byte* from) { return load_little_endian<std::uint64_t>(from); }

}  // namespace sluice
