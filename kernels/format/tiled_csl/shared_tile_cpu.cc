// Finds the nonzeros of a tile, ahead of everything that costs time per nonzero.
// clang-format off: this file is compiled once per SIMD target, and the order of includes makes it so
#include "kernels/device/cpu/simd_targets.h"
#define HWY_TARGET_INCLUDE "kernels/format/tiled_csl/shared_tile_cpu.cc"
#include "hwy/foreach_target.h"
#include "kernels/device/cpu/simd_inl.h"
// clang-format on
#include "kernels/format/tiled_csl/shared_tile.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::kernels::HWY_NAMESPACE {

void mark_nonzeros(std::uint16_t* values, std::int64_t num_rows, std::uint64_t* nonzeros) {
  const hn::CappedTag<std::uint16_t, kSharedCols> d;
  const auto lanes = static_cast<int>(hn::Lanes(d));
  const auto magnitude = hn::Set(d, 0x7FFFU);
  for (std::int64_t r = 0; r < num_rows; ++r) {
    std::uint16_t* row = values + r * kSharedCols;
    std::uint64_t bits = 0;
    for (int c = 0; c < kSharedCols; c += lanes) {
      const auto v = hn::LoadU(d, row + c);
      const auto is_zero = hn::Eq(hn::And(v, magnitude), hn::Zero(d));
      hn::StoreU(hn::IfThenZeroElse(is_zero, v), d, row + c);
      std::uint8_t bytes[8] = {};
      hn::StoreMaskBits(d, hn::Not(is_zero), bytes);
      std::uint64_t part = 0;
      std::memcpy(&part, bytes, sizeof(part));
      bits |= part << c;
    }
    nonzeros[r] = bits;
  }
}

}  // namespace sluice::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::kernels::detail {
namespace {
HWY_EXPORT(mark_nonzeros);
}  // namespace
void mark_nonzeros(std::uint16_t* values, std::int64_t num_rows, std::uint64_t* nonzeros) {
  HWY_DYNAMIC_DISPATCH(mark_nonzeros)(values, num_rows, nonzeros);
}
}  // namespace sluice::kernels::detail
#endif
