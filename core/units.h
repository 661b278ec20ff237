// Bytes and rates as people write and read them: GiB is 2^30, GB is 10^9. Pure functions, thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace sluice {

inline namespace literals {
constexpr std::int64_t operator""_KiB(unsigned long long n) { return static_cast<std::int64_t>(n) << 10; }
constexpr std::int64_t operator""_MiB(unsigned long long n) { return static_cast<std::int64_t>(n) << 20; }
constexpr std::int64_t operator""_GiB(unsigned long long n) { return static_cast<std::int64_t>(n) << 30; }
}  // namespace literals

/// Offsets and lengths of O_DIRECT I/O, of stored tensors and of arena blocks are multiples of this.
inline constexpr std::int64_t kPageAlign = 4096;

constexpr std::int64_t align_up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }
constexpr std::int64_t div_up(std::int64_t n, std::int64_t by) { return (n + by - 1) / by; }

constexpr double gib(std::int64_t bytes) { return static_cast<double>(bytes) / (1 << 30); }
constexpr double gb(std::int64_t bytes) { return static_cast<double>(bytes) / 1e9; }

/// "16.00 GiB", "4.0 KiB", "12 B": for messages.
std::string format_bytes(std::int64_t bytes);

/// Reads "16GiB", "1.5 TiB", "512MiB", "4096" (bytes; also KB..TB as powers of ten). 0 is allowed.
/// Throws Error{kInvalidArgument} that names `what` (a flag or key) for anything else.
std::int64_t parse_bytes(std::string_view text, std::string_view what);

}  // namespace sluice
