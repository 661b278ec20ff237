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

template <class T>
void quantise(const QuantLayout& layout, DType dtype, const std::uint16_t* values, std::byte* codes,
              std::byte* params) {
  const std::size_t param_size = layout.has_minimum ? sizeof(GroupParams) : sizeof(GroupParams::scale);
  auto* out = reinterpret_cast<std::uint8_t*>(codes);
  // Padding is zeros of the matrix, as codes. 4-bit groups are whole bytes, except at the end of a row.
  const auto fill = static_cast<std::uint8_t>(layout.bits == 4 ? layout.zero_code * 17 : layout.zero_code);
  const std::int64_t used = layout.cols * layout.bits / 8;
  std::fill_n(out + used, layout.row_bytes - used, fill);
  for (std::int64_t g = 0; g < layout.num_groups; ++g) {
    const std::int64_t col = g * layout.group_cols;
    const std::int64_t n = std::min(layout.group_cols, layout.cols - col);
    const GroupParams chosen = choose_params(layout, dtype, values + col, n);
    std::memcpy(params + g * static_cast<std::int64_t>(param_size), &chosen, param_size);
    const GroupScale group = group_scale(layout, dtype, chosen.scale, chosen.minimum);
    if (layout.bits == 8) {
      quantise_group<T>(values + col, n, group, out + col);
    } else {
      std::uint8_t unpacked[kGroupBlock];
      quantise_group<T>(values + col, n, group, unpacked);
      if (n % 2 != 0) unpacked[n] = layout.zero_code;
      pack_nibbles(unpacked, align_up(n, 2), out + col / 2);
    }
  }
}

template <class T>
void dequantise(const QuantLayout& layout, DType dtype, const std::byte* codes, const std::byte* params,
                std::uint16_t* values) {
  const std::size_t param_size = layout.has_minimum ? sizeof(GroupParams) : sizeof(GroupParams::scale);
  const auto* in = reinterpret_cast<const std::uint8_t*>(codes);
  for (std::int64_t g = 0; g < layout.num_groups; ++g) {
    const std::int64_t col = g * layout.group_cols;
    const std::int64_t n = std::min(layout.group_cols, layout.cols - col);
    GroupParams stored;
    std::memcpy(&stored, params + g * static_cast<std::int64_t>(param_size), param_size);
    const GroupScale group = group_scale(layout, dtype, stored.scale, stored.minimum);
    if (layout.bits == 8) {
      dequantise_group<T>(in + col, n, group, values + col);
    } else {
      std::uint8_t unpacked[kGroupBlock];
      unpack_nibbles(in + col / 2, n, unpacked);
      dequantise_group<T>(unpacked, n, group, values + col);
    }
  }
}

void quantise_row(const QuantLayout& layout, DType dtype, const std::uint16_t* values, std::byte* codes,
                  std::byte* params) {
  dtype == DType::kF16 ? quantise<Half>(layout, dtype, values, codes, params)
                       : quantise<BFloat16>(layout, dtype, values, codes, params);
}

void dequantise_row(const QuantLayout& layout, DType dtype, const std::byte* codes, const std::byte* params,
                    std::uint16_t* values) {
  dtype == DType::kF16 ? dequantise<Half>(layout, dtype, codes, params, values)
                       : dequantise<BFloat16>(layout, dtype, codes, params, values);
}

}  // namespace sluice::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::kernels::detail {
namespace {
HWY_EXPORT(quantise_row);
HWY_EXPORT(dequantise_row);
}  // namespace
void quantise_row(const QuantLayout& layout, DType dtype, const std::uint16_t* values, std::byte* codes,
                  std::byte* params) {
  HWY_DYNAMIC_DISPATCH(quantise_row)(layout, dtype, values, codes, params);
}
void dequantise_row(const QuantLayout& layout, DType dtype, const std::byte* codes, const std::byte* params,
                    std::uint16_t* values) {
  HWY_DYNAMIC_DISPATCH(dequantise_row)(layout, dtype, codes, params, values);
}
}  // namespace sluice::kernels::detail
#endif
