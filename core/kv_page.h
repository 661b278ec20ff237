// The page: the unit in which KV is stored, placed, moved and attended. Pure functions, thread-safe.
//
// One (layer, sequence, page) is one contiguous run: K of all KV heads, then V of all KV heads; each head
// is [kKvPageTokens, head_dim] row-major. So a page is one transfer and one head of a page is one stream.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "core/dtype.h"
#include "core/units.h"

namespace sluice {

inline constexpr std::int64_t kKvPageTokens = 64;

enum class KvFormat : std::uint8_t { kF32, kF16 };

constexpr std::string_view kv_format_name(KvFormat format) {
  return format == KvFormat::kF32 ? "fp32" : "fp16";
}
constexpr std::optional<KvFormat> parse_kv_format(std::string_view name) {
  if (name == "fp32") return KvFormat::kF32;
  if (name == "fp16") return KvFormat::kF16;
  return std::nullopt;
}

struct KvLayout {
  std::int64_t num_kv_heads = 0;
  std::int64_t head_dim = 0;
  KvFormat format = KvFormat::kF16;

  constexpr std::int64_t element_bytes() const { return format == KvFormat::kF32 ? 4 : 2; }
  /// Bytes of one token of one head of K (or V).
  constexpr std::int64_t row_bytes() const { return head_dim * element_bytes(); }
  constexpr std::int64_t head_bytes() const { return kKvPageTokens * row_bytes(); }
  /// Bytes of K and V of one token over all heads.
  constexpr std::int64_t token_bytes() const { return 2 * num_kv_heads * row_bytes(); }
  /// Bytes of a page's data.
  constexpr std::int64_t page_bytes() const { return 2 * num_kv_heads * head_bytes(); }
  /// Distance between pages in every tier, a multiple of the O_DIRECT alignment.
  constexpr std::int64_t page_stride() const { return align_up(page_bytes(), kPageAlign); }
  constexpr std::int64_t k_offset(std::int64_t head) const { return head * head_bytes(); }
  constexpr std::int64_t v_offset(std::int64_t head) const { return (num_kv_heads + head) * head_bytes(); }
};

constexpr std::int64_t kv_pages(std::int64_t num_tokens) { return div_up(num_tokens, kKvPageTokens); }

}  // namespace sluice
