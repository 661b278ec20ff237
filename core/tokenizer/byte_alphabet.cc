#include "core/tokenizer/byte_alphabet.h"

#include <array>

#include "core/tokenizer/utf8.h"

namespace sluice {
namespace {

constexpr bool is_printable(std::uint32_t byte) {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255);
}

constexpr std::array<std::uint32_t, 256> kCodePoints = [] {
  std::array<std::uint32_t, 256> code_points{};
  std::uint32_t next = 256;
  for (std::uint32_t byte = 0; byte < 256; ++byte) code_points[byte] = is_printable(byte) ? byte : next++;
  return code_points;
}();
constexpr std::uint32_t kNumCodePoints = 256 + 68;  // 68 bytes are not printable

/// By code point: the byte, or -1.
constexpr std::array<std::int16_t, kNumCodePoints> kBytes = [] {
  std::array<std::int16_t, kNumCodePoints> bytes{};
  for (std::int16_t& byte : bytes) byte = -1;
  for (std::uint32_t byte = 0; byte < 256; ++byte) bytes[kCodePoints[byte]] = static_cast<std::int16_t>(byte);
  return bytes;
}();

}  // namespace

std::uint32_t alphabet_code_point(std::uint8_t byte) { return kCodePoints[byte]; }

std::optional<std::string> alphabet_to_bytes(std::string_view symbol) {
  std::string bytes;
  while (!symbol.empty()) {
    const Utf8Step step = next_utf8(symbol);
    if (step.kind != Utf8Kind::kValid || step.code_point >= kNumCodePoints) return std::nullopt;
    const std::int16_t byte = kBytes[step.code_point];
    if (byte < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(byte));
    symbol.remove_prefix(step.length);
  }
  return bytes;
}

}  // namespace sluice
