// Groups of values that share a scale: their range, their codes (one in a byte) and back, and codes of 4 bits
// packed, of both into the chunks of a row. Compiled once per SIMD target; for *_cpu.cc files only, included
// after simd_inl.h. (Highway's re-inclusion needs the #if below.)
//
// Plain loops vectorise for the target of this namespace. Every step is an exactly rounded IEEE operation on
// one element, so all targets give the same bytes.
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/dtype.h"
#include "kernels/format/quantised/scale.h"

#if defined(SLUICE_KERNELS_FORMAT_QUANTISED_GROUP_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SLUICE_KERNELS_FORMAT_QUANTISED_GROUP_INL_H_
#undef SLUICE_KERNELS_FORMAT_QUANTISED_GROUP_INL_H_
#else
#define SLUICE_KERNELS_FORMAT_QUANTISED_GROUP_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace sluice::kernels::HWY_NAMESPACE {

/// Values on their way are kept as so many floats, in L1.
inline constexpr std::int64_t kGroupBlock = 128;

/// What codes decode with: fma(code - bias, scale, minimum).
struct GroupScale {
  float scale = 0.0F, minimum = 0.0F;
  std::int32_t bias = 0, limit = 0;  ///< codes are bias - limit .. bias + limit, or 0 .. limit without a bias
};

/// Bits of the largest magnitude: finite magnitudes are ordered as their bits are.
HWY_INLINE std::uint16_t max_magnitude(const std::uint16_t* values, std::int64_t n) {
  std::uint16_t max = 0;
  for (std::int64_t i = 0; i < n; ++i) max = std::max(max, static_cast<std::uint16_t>(values[i] & 0x7FFFU));
  return max;
}

/// Bits as an integer that is ordered as the values are; its own inverse.
HWY_INLINE std::int16_t ordered(std::uint16_t bits) {
  const auto value = static_cast<std::int16_t>(bits);
  return static_cast<std::int16_t>(value ^ ((value >> 15) & 0x7FFF));
}

/// Bits of the smallest and the largest value, n > 0; zero is never negative.
struct ValueRange {
  std::uint16_t min = 0, max = 0;
};
HWY_INLINE ValueRange value_range(const std::uint16_t* values, std::int64_t n) {
  std::int16_t min = ordered(values[0]);
  std::int16_t max = min;
  for (std::int64_t i = 1; i < n; ++i) {
    min = std::min(min, ordered(values[i]));
    max = std::max(max, ordered(values[i]));
  }
  const auto bits = [](std::int16_t x) {
    return static_cast<std::uint16_t>(x == -1 ? 0 : ordered(static_cast<std::uint16_t>(x)));
  };
  return {bits(min), bits(max)};
}

template <class T>
HWY_INLINE void widen_group(const std::uint16_t* values, std::int64_t n, float* out) {
  const auto* in = reinterpret_cast<const T*>(values);
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store_f32(load_f32(in + i), out + i);
  for (; i < n; ++i) out[i] = to_float(in[i]);
}

/// The codes of values in the group's range. T is Half or BFloat16.
template <class T>
HWY_INLINE void quantise_group(const std::uint16_t* values, std::int64_t n, const GroupScale& group,
                               std::uint8_t* codes) {
  if (group.scale == 0.0F) {
    std::fill_n(codes, n, static_cast<std::uint8_t>(group.bias));
    return;
  }
  // Halves, because the range of bf16 overflows fp32.
  const float half_min = group.minimum * 0.5F;
  const float half_scale = group.scale * 0.5F;
  const auto high = static_cast<float>(group.limit);
  const float low = group.bias == 0 ? 0.0F : -high;
  // Added to this number a small one is rounded to an integer, to nearest even (it is even itself), and
  // stands in the last bits.
  const float integer = 12582912.0F + static_cast<float>(group.bias);
  float wide[kGroupBlock];
  for (std::int64_t first = 0; first < n; first += kGroupBlock) {
    const std::int64_t count = std::min(kGroupBlock, n - first);
    widen_group<T>(values + first, count, wide);
    for (std::int64_t i = 0; i < count; ++i) {
      float q = (wide[i] * 0.5F - half_min) / half_scale;
      q = q < low ? low : q;
      q = q > high ? high : q;
      codes[first + i] = static_cast<std::uint8_t>(std::bit_cast<std::uint32_t>(q + integer));
    }
  }
}

template <class T>
HWY_INLINE void dequantise_group(const std::uint8_t* codes, std::int64_t n, const GroupScale& group,
                                 std::uint16_t* values) {
  // A product has at most 8 and 11 bits, which fp32 holds, so the sum is rounded once, as by fma. Halves,
  // which are exact, because a product may be beyond the range of fp32 where the sum is not.
  const float half_min = group.minimum * 0.5F;
  const float half_scale = group.scale * 0.5F;
  float wide[kGroupBlock];
  for (std::int64_t first = 0; first < n; first += kGroupBlock) {
    const std::int64_t count = std::min(kGroupBlock, n - first);
    for (std::int64_t i = 0; i < count; ++i) {
      const auto q = static_cast<float>(static_cast<std::int32_t>(codes[first + i]) - group.bias);
      wide[i] = (q * half_scale + half_min) * 2.0F;
    }
    store_row(wide, count, reinterpret_cast<T*>(values + first));
  }
}

/// Two codes in a byte, the first in its low half; behind an odd number of them the last half is zero.
HWY_INLINE void pack_nibbles(const std::uint8_t* codes, std::int64_t n, std::uint8_t* out) {
  for (std::int64_t i = 0; i < n / 2; ++i) {
    out[i] = static_cast<std::uint8_t>(codes[2 * i] | (codes[2 * i + 1] << 4));
  }
  if (n % 2 != 0) out[n / 2] = codes[n - 1];
}

HWY_INLINE void unpack_nibbles(const std::uint8_t* in, std::int64_t n, std::uint8_t* codes) {
  for (std::int64_t i = 0; i < n / 2; ++i) {
    codes[2 * i] = static_cast<std::uint8_t>(in[i] & 15U);
    codes[2 * i + 1] = static_cast<std::uint8_t>(in[i] >> 4);
  }
  if (n % 2 != 0) codes[n - 1] = static_cast<std::uint8_t>(in[n / 2] & 15U);
}

/// Codes to stored chunks of 16 bytes, eight 16-bit words (FORMAT.md), and back: kBits of each code.
template <int kBits>
HWY_INLINE void pack_chunks(const std::uint8_t* codes, std::int64_t chunks, std::uint8_t* out) {
  constexpr int kParts = 16 / kBits;
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk, codes += 8 * kParts, out += 16) {
    std::uint16_t words[8] = {};
    for (int part = 0; part < kParts; ++part) {
      for (int j = 0; j < 8; ++j)
        words[j] = static_cast<std::uint16_t>(words[j] | codes[8 * part + j] << kBits * part);
    }
    std::memcpy(out, words, sizeof(words));
  }
}

template <int kBits>
HWY_INLINE void unpack_chunks(const std::uint8_t* in, std::int64_t chunks, std::uint8_t* codes) {
  constexpr int kParts = 16 / kBits;
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk, codes += 8 * kParts, in += 16) {
    std::uint16_t words[8];
    std::memcpy(words, in, sizeof(words));
#if HWY_TARGET == HWY_SCALAR
    for (int part = 0; part < kParts; ++part) {
      for (int j = 0; j < 8; ++j)
        codes[8 * part + j] = static_cast<std::uint8_t>(words[j] >> kBits * part & ((1 << kBits) - 1));
    }
#else
    const hn::FixedTag<std::int16_t, 8> d16;
    const hn::FixedTag<std::uint16_t, 8> du16;
    const hn::FixedTag<std::uint8_t, 8> d8;
    auto parts = hn::LoadU(du16, words);
    for (int part = 0; part < kParts; ++part) {
      const auto lowest = hn::BitCast(d16, hn::And(parts, hn::Set(du16, (1 << kBits) - 1)));
      hn::StoreU(hn::DemoteTo(d8, lowest), d8, codes + 8 * part);
      parts = hn::ShiftRight<kBits>(parts);
    }
#endif
  }
}

}  // namespace sluice::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
