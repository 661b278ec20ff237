// One chunk of a bitmap: 8 elements at a time are gathered or spread by a byte shuffle that their mask looks
// up. Quantised nonzeros pass through their codes, a byte each, on the way.
// clang-format off: this file is compiled once per SIMD target, and the order of includes makes it so
#include "kernels/device/cpu/simd_targets.h"
#define HWY_TARGET_INCLUDE "kernels/format/bitmap/bitmap_cpu.cc"
#include "hwy/foreach_target.h"
#include "kernels/device/cpu/simd_inl.h"
#include "kernels/format/quantised/group_inl.h"
// clang-format on
#include "core/units.h"
#include "kernels/format/bitmap/bitmap.h"
#include "kernels/format/bitmap/shuffles.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::kernels::HWY_NAMESPACE {

using detail::ChunkSegments;

/// Elements whose mask is looked up at once. Vectors are loaded and stored whole, so arrays of nonzeros have
/// so many more behind their end.
inline constexpr std::int64_t kLookup = 8;
inline constexpr std::int64_t kMaskBytes = detail::kSegmentMaskBytes;

/// Appends the nonzeros of in[0..7] to `out`; returns the mask.
HWY_INLINE std::uint8_t gather_nonzeros(const std::uint16_t* in, std::uint16_t* out) {
#if HWY_TARGET == HWY_SCALAR
  unsigned mask = 0;
  for (unsigned j = 0; j < kLookup; ++j) {
    *out = in[j];
    const unsigned is_set = (in[j] & 0x7FFFU) != 0 ? 1U : 0U;
    out += is_set;
    mask |= is_set << j;
  }
  return static_cast<std::uint8_t>(mask);
#else
  const hn::FixedTag<std::uint16_t, 8> d;
  const hn::FixedTag<std::uint8_t, 16> d8;
  const auto values = hn::LoadU(d, in);
  std::uint8_t mask[8];
  hn::StoreMaskBits(d, hn::Ne(hn::And(values, hn::Set(d, 0x7FFFU)), hn::Zero(d)), mask);
  const auto shuffle = hn::Load(d8, detail::kCompress[mask[0]].index.data());
  hn::StoreU(hn::BitCast(d, hn::TableLookupBytesOr0(hn::BitCast(d8, values), shuffle)), d, out);
  return mask[0];
#endif
}

/// The elements of `mask` from their nonzeros.
HWY_INLINE void spread_nonzeros(std::uint8_t mask, const std::byte* nonzeros, std::uint16_t* out) {
#if HWY_TARGET == HWY_SCALAR
  for (unsigned j = 0; j < kLookup; ++j) {
    out[j] = 0;
    if ((mask >> j & 1U) == 0) continue;
    std::memcpy(out + j, nonzeros, sizeof(std::uint16_t));
    nonzeros += sizeof(std::uint16_t);
  }
#else
  const hn::FixedTag<std::uint16_t, 8> d;
  const hn::FixedTag<std::uint8_t, 16> d8;
  const auto values = hn::LoadU(d8, reinterpret_cast<const std::uint8_t*>(nonzeros));
  const auto shuffle = hn::Load(d8, detail::kExpand[mask].index.data());
  hn::StoreU(hn::BitCast(d, hn::TableLookupBytesOr0(values, shuffle)), d, out);
#endif
}

/// Calls body(index in the chunk, offset of the first element in the matrix, number of elements).
template <class Body>
HWY_INLINE void for_each_segment(const ChunkSegments& segments, const Body& body) {
  const std::int64_t row_segments = div_up(segments.cols, kBitmapSegmentCols);
  std::int64_t row = segments.first / row_segments;
  std::int64_t in_row = segments.first % row_segments;
  for (std::int64_t s = 0; s < segments.count; ++s) {
    const std::int64_t col = in_row * kBitmapSegmentCols;
    body(s, row * segments.cols + col, std::min(kBitmapSegmentCols, segments.cols - col));
    if (++in_row == row_segments) {
      in_row = 0;
      ++row;
    }
  }
}

HWY_INLINE GroupScale symmetric_group(std::uint16_t scale, int bits, DType dtype) {
  return {value_of(scale, dtype), 0.0F, symmetric_bias(bits), symmetric_limit(bits)};
}

template <class T>
std::int64_t encode_chunk(const ChunkSegments& segments, const std::uint16_t* values, std::byte* out) {
  std::uint16_t nonzeros[detail::kChunkCells + kLookup];
  std::uint8_t codes[detail::kChunkCells];
  std::memset(out, 0, static_cast<std::size_t>(detail::chunk_values_offset(segments.bits)));
  auto* masks = reinterpret_cast<std::uint8_t*>(out);
  std::int64_t count = 0;
  for_each_segment(segments, [&](std::int64_t s, std::int64_t offset, std::int64_t length) {
    std::uint16_t padded[kBitmapSegmentCols];
    const std::uint16_t* in = values + offset;
    if (length < kBitmapSegmentCols) {
      std::fill_n(std::copy_n(in, length, padded), kBitmapSegmentCols - length, std::uint16_t{0});
      in = padded;
    }
    const std::int64_t first = count;
    for (std::int64_t i = 0; i < kMaskBytes; ++i) {
      const std::uint8_t mask = gather_nonzeros(in + i * kLookup, nonzeros + count);
      masks[s * kMaskBytes + i] = mask;
      count += std::popcount(mask);
    }
    if (segments.bits == 16) return;
    const float max_abs = value_of(max_magnitude(nonzeros + first, count - first), segments.dtype);
    const std::uint16_t scale = symmetric_scale(max_abs, symmetric_limit(segments.bits), segments.dtype);
    std::memcpy(out + detail::kChunkMaskBytes + 2 * s, &scale, sizeof(scale));
    quantise_group<T>(nonzeros + first, count - first, symmetric_group(scale, segments.bits, segments.dtype),
                      codes + first);
  });

  std::byte* to = out + detail::chunk_values_offset(segments.bits);
  const std::int64_t bytes = div_up(count * segments.bits, 8);
  if (segments.bits == 16) {
    std::memcpy(to, nonzeros, static_cast<std::size_t>(bytes));
  } else if (segments.bits == 8) {
    std::memcpy(to, codes, static_cast<std::size_t>(bytes));
  } else {
    pack_nibbles(codes, count, reinterpret_cast<std::uint8_t*>(to));
  }
  const std::int64_t padding = align_up(bytes, 16) - bytes;
  std::memset(to + bytes, 0, static_cast<std::size_t>(padding));
  return to + bytes + padding - out;
}

/// Spreads the chunk's nonzeros, 16 bits each, over its segments.
HWY_INLINE void expand_values(const ChunkSegments& segments, const std::byte* chunk,
                              const std::byte* nonzeros, std::uint16_t* values) {
  const auto* masks = reinterpret_cast<const std::uint8_t*>(chunk);
  for_each_segment(segments, [&](std::int64_t s, std::int64_t offset, std::int64_t length) {
    std::uint16_t padded[kBitmapSegmentCols];
    const bool is_short = length < kBitmapSegmentCols;  // what stands behind it belongs to others
    std::uint16_t* out = is_short ? padded : values + offset;
    for (std::int64_t i = 0; i < kMaskBytes; ++i) {
      const std::uint8_t mask = masks[s * kMaskBytes + i];
      spread_nonzeros(mask, nonzeros, out + i * kLookup);
      nonzeros += 2 * std::popcount(mask);
    }
    if (is_short) std::copy_n(padded, length, values + offset);
  });
}

HWY_INLINE std::int64_t segment_nonzeros(const std::byte* chunk, std::int64_t segment) {
  std::uint64_t halves[2];
  std::memcpy(halves, chunk + segment * kMaskBytes, sizeof(halves));
  return std::popcount(halves[0]) + std::popcount(halves[1]);
}

template <class T>
void expand_chunk(const ChunkSegments& segments, const std::byte* chunk, std::uint16_t* values) {
  const std::byte* from = chunk + detail::chunk_values_offset(segments.bits);
  if (segments.bits == 16) return expand_values(segments, chunk, from, values);

  std::uint8_t unpacked[detail::kChunkCells];
  const auto* codes = reinterpret_cast<const std::uint8_t*>(from);
  if (segments.bits == 4) {
    std::int64_t count = 0;
    for (std::int64_t s = 0; s < segments.count; ++s) count += segment_nonzeros(chunk, s);
    unpack_nibbles(codes, count, unpacked);
    codes = unpacked;
  }
  std::uint16_t nonzeros[detail::kChunkCells + kLookup];
  std::uint16_t* end = nonzeros;
  for (std::int64_t s = 0; s < segments.count; ++s) {
    const std::int64_t count = segment_nonzeros(chunk, s);
    std::uint16_t scale = 0;
    std::memcpy(&scale, chunk + detail::kChunkMaskBytes + 2 * s, sizeof(scale));
    dequantise_group<T>(codes, count, symmetric_group(scale, segments.bits, segments.dtype), end);
    codes += count;
    end += count;
  }
  std::fill_n(end, kLookup, std::uint16_t{0});
  expand_values(segments, chunk, reinterpret_cast<const std::byte*>(nonzeros), values);
}

std::int64_t encode_bitmap_chunk(const ChunkSegments& segments, const std::uint16_t* values, std::byte* out) {
  return segments.dtype == DType::kF16 ? encode_chunk<Half>(segments, values, out)
                                       : encode_chunk<BFloat16>(segments, values, out);
}

void expand_bitmap_chunk(const ChunkSegments& segments, const std::byte* chunk, std::uint16_t* values) {
  segments.dtype == DType::kF16 ? expand_chunk<Half>(segments, chunk, values)
                                : expand_chunk<BFloat16>(segments, chunk, values);
}

}  // namespace sluice::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::kernels::detail {
namespace {
HWY_EXPORT(encode_bitmap_chunk);
HWY_EXPORT(expand_bitmap_chunk);
}  // namespace
std::int64_t encode_bitmap_chunk(const ChunkSegments& segments, const std::uint16_t* values, std::byte* out) {
  return HWY_DYNAMIC_DISPATCH(encode_bitmap_chunk)(segments, values, out);
}
void expand_bitmap_chunk(const ChunkSegments& segments, const std::byte* chunk, std::uint16_t* values) {
  HWY_DYNAMIC_DISPATCH(expand_bitmap_chunk)(segments, chunk, values);
}
}  // namespace sluice::kernels::detail
#endif
