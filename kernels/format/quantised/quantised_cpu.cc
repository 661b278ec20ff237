// One row of a quantised matrix, group by group.
// clang-format off: this file is compiled once per SIMD target, and the order of includes makes it so
#include "kernels/device/cpu/simd_targets.h"
#define HWY_TARGET_INCLUDE "kernels/format/quantised/quantised_cpu.cc"
#include "hwy/foreach_target.h"
#include "kernels/device/cpu/simd_inl.h"
#include "kernels/format/quantised/group_inl.h"
// clang-format on
#include "core/units.h"
#include "kernels/format/quantised/quantised.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::kernels::HWY_NAMESPACE {

HWY_INLINE GroupScale group_scale(const QuantLayout& layout, DType dtype, std::uint16_t scale,
                                  std::uint16_t minimum) {
  return {value_of(scale, dtype), value_of(minimum, dtype), layout.zero_code,
          layout.has_minimum ? kAsymmetricLimit : symmetric_limit(layout.bits)};
}

/// A group's scale and minimum, as they are stored.
struct GroupParams {
  std::uint16_t scale = 0, minimum = 0;
};

HWY_INLINE GroupParams choose_params(const QuantLayout& layout, DType dtype, const std::uint16_t* values,
                                     std::int64_t n) {
  if (layout.has_minimum) {
    const ValueRange range = value_range(values, n);
    return {asymmetric_scale(value_of(range.min, dtype), value_of(range.max, dtype), dtype), range.min};
  }
  return {symmetric_scale(value_of(max_magnitude(values, n), dtype), symmetric_limit(layout.bits), dtype), 0};
}

/// Columns whose codes are on their way at a time: whole chunks, and a group of 4-bit codes.
inline constexpr std::int64_t kBlockCols = kGroupBlock;

template <class T, int kBits>
void quantise(const QuantLayout& layout, DType dtype, const std::uint16_t* values,
              const detail::QuantRow<std::byte>& row) {
  constexpr std::int64_t kChunkCols = kQuantChunkBytes * 8 / kBits;
  auto* out = reinterpret_cast<std::uint8_t*>(row.codes);
  for (std::int64_t g = 0; g < layout.num_groups; ++g) {
    const std::int64_t first = g * layout.group_cols;
    const std::int64_t n = std::min(layout.group_cols, layout.cols - first);
    const GroupParams chosen = choose_params(layout, dtype, values + first, n);
    std::memcpy(row.params + g * row.group_bytes, &chosen, static_cast<std::size_t>(layout.param_bytes));
    const GroupScale group = group_scale(layout, dtype, chosen.scale, chosen.minimum);
    for (std::int64_t col = first; col < first + n; col += kBlockCols) {
      const std::int64_t count = std::min(kBlockCols, first + n - col);
      std::uint8_t codes[kBlockCols];
      quantise_group<T>(values + col, count, group, codes);
      // Padding is zeros of the matrix, as codes.
      std::fill(codes + count, codes + align_up(count, kChunkCols), layout.zero_code);
      pack_chunks<kBits>(codes, div_up(count, kChunkCols), out + col / kChunkCols * kQuantChunkBytes);
    }
  }
}

template <class T, int kBits>
void dequantise(const QuantLayout& layout, DType dtype, const detail::QuantRow<const std::byte>& row,
                std::uint16_t* values) {
  constexpr std::int64_t kChunkCols = kQuantChunkBytes * 8 / kBits;
  const auto* in = reinterpret_cast<const std::uint8_t*>(row.codes);
  for (std::int64_t g = 0; g < layout.num_groups; ++g) {
    const std::int64_t first = g * layout.group_cols;
    const std::int64_t n = std::min(layout.group_cols, layout.cols - first);
    GroupParams stored;
    std::memcpy(&stored, row.params + g * row.group_bytes, static_cast<std::size_t>(layout.param_bytes));
    const GroupScale group = group_scale(layout, dtype, stored.scale, stored.minimum);
    for (std::int64_t col = first; col < first + n; col += kBlockCols) {
      const std::int64_t count = std::min(kBlockCols, first + n - col);
      std::uint8_t codes[kBlockCols];
      unpack_chunks<kBits>(in + col / kChunkCols * kQuantChunkBytes, div_up(count, kChunkCols), codes);
      dequantise_group<T>(codes, count, group, values + col);
    }
  }
}

/// body(T{}, bits) of a layout and type.
template <class Body>
HWY_INLINE void with_types(const QuantLayout& layout, DType dtype, const Body& body) {
  const auto with_bits = [&](auto type) {
    layout.bits == 8 ? body(type, std::integral_constant<int, 8>{})
                     : body(type, std::integral_constant<int, 4>{});
  };
  dtype == DType::kF16 ? with_bits(Half{}) : with_bits(BFloat16{});
}

void quantise_row(const QuantLayout& layout, DType dtype, const std::uint16_t* values,
                  const detail::QuantRow<std::byte>& row) {
  with_types(layout, dtype,
             [&]<class T, class Bits>(T, Bits) { quantise<T, Bits::value>(layout, dtype, values, row); });
}

void dequantise_row(const QuantLayout& layout, DType dtype, const detail::QuantRow<const std::byte>& row,
                    std::uint16_t* values) {
  with_types(layout, dtype,
             [&]<class T, class Bits>(T, Bits) { dequantise<T, Bits::value>(layout, dtype, row, values); });
}

}  // namespace sluice::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::kernels::detail {
namespace {
HWY_EXPORT(quantise_row);
HWY_EXPORT(dequantise_row);
}  // namespace
void quantise_row(const QuantLayout& layout, DType dtype, const std::uint16_t* values,
                  const QuantRow<std::byte>& row) {
  HWY_DYNAMIC_DISPATCH(quantise_row)(layout, dtype, values, row);
}
void dequantise_row(const QuantLayout& layout, DType dtype, const QuantRow<const std::byte>& row,
                    std::uint16_t* values) {
  HWY_DYNAMIC_DISPATCH(dequantise_row)(layout, dtype, row, values);
}
}  // namespace sluice::kernels::detail
#endif
