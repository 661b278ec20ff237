// A counter-based generator for weights: 3 multiplications an element, so that a synthetic model of tens of
// gigabytes is there in seconds.
// clang-format off: this file is compiled once per SIMD target, and the order of includes makes it so
#include "kernels/device/cpu/simd_targets.h"
#define HWY_TARGET_INCLUDE "kernels/format/random_weights_cpu.cc"
#include "hwy/foreach_target.h"
#include "kernels/device/cpu/simd_inl.h"
// clang-format on
#include <algorithm>

#include "kernels/format/random_weights.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::kernels::HWY_NAMESPACE {

/// A block of 2^32 elements at most shares `low` and `high`. The loop vectorises: everything is 32 bits wide.
/// The multiply-xorshift rounds are those of integer hash finalisers (constants from Wellons' hash
/// prospector, triple32, whose bias is at the limit of what 32 bits allow), keyed before and between.
void random_block(std::uint32_t low, std::uint32_t high, std::uint32_t first, std::int64_t count, float scale,
                  float offset, float* out) {
  for (std::int64_t i = 0; i < count; ++i) {
    std::uint32_t x = (first + static_cast<std::uint32_t>(i)) ^ low;
    x ^= x >> 17;
    x *= 0xED5AD4BBU;
    x ^= x >> 11;
    x += high;
    x *= 0xAC4C1B51U;
    x ^= x >> 15;
    x *= 0x31848BABU;
    x ^= x >> 14;
    const auto sum = static_cast<std::int32_t>((x & 0xFFFFU) + (x >> 16)) - 0xFFFF;
    out[i] = offset + scale * static_cast<float>(sum);
  }
}

void random_floats(std::uint64_t key, std::int64_t first, std::int64_t count, float scale, float offset,
                   float* out) {
  constexpr std::int64_t kBlock = std::int64_t{1} << 32;
  while (count > 0) {
    const std::int64_t block = first / kBlock;
    const std::int64_t n = std::min(count, (block + 1) * kBlock - first);
    const std::uint64_t block_key = key + static_cast<std::uint64_t>(block) * 0x9E3779B97F4A7C15U;
    random_block(static_cast<std::uint32_t>(block_key), static_cast<std::uint32_t>(block_key >> 32),
                 static_cast<std::uint32_t>(first), n, scale, offset, out);
    first += n;
    out += n;
    count -= n;
  }
}

}  // namespace sluice::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::kernels::detail {
namespace {
HWY_EXPORT(random_floats);
}
void random_floats(std::uint64_t key, std::int64_t first, std::int64_t count, float scale, float offset,
                   float* out) {
  HWY_DYNAMIC_DISPATCH(random_floats)(key, first, count, scale, offset, out);
}
}  // namespace sluice::kernels::detail
#endif
