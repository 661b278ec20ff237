// Linear layer on the CPU.
//
// Every dot product of a row of x and a row of the weight has one vector accumulator: lane l sums the
// products at l, l + kLanes, ... in this order by multiply-add, the last partial vector is padded with zeros,
// and reduce_lanes() adds the lanes. That holds in every tile shape, so a row's result does not depend on the
// rows beside it. Instruction-level parallelism comes from several dot products at once: a register tile of
// rows x features.
//
// Up to kFewRows rows (decode) the weight is streamed once from memory and widened in registers; this is
// bound by the memory's read rate. More rows go block by block: kRowBlock rows x kFeatureBlock features, k in
// chunks of kChunk; a chunk of the weight is widened to fp32 once per row block and stays in L1 while the row
// tiles pass over it, and the accumulators wait in L2 between chunks. This is bound by multiply-adds.
//
// This file is compiled once per SIMD target; the order of these includes makes it so.
// clang-format off
#include "kernels/device/cpu/simd_targets.h"
#define HWY_TARGET_INCLUDE "kernels/ops/linear_cpu.cc"
#include "hwy/foreach_target.h"
#include "kernels/ops/epilogue_inl.h"
// clang-format on

#include <algorithm>
#include <type_traits>

#include "core/units.h"
#include "kernels/ops/cpu_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::kernels::HWY_NAMESPACE {

constexpr int kTileRows = kHas32Registers ? 4 : 3;
/// Where widening a weight once for all rows begins to pay: from here on it is read again and again from L1.
constexpr std::int64_t kFewRows = 16;
constexpr std::int64_t kRowBlock = 64;
constexpr std::int64_t kFeatureBlock = 48;  // a multiple of kLanes and of the tiles' features
constexpr std::int64_t kChunk = 1024;
/// How far ahead of its use a weight is fetched from memory, in elements: 1 KiB of each of the tile's rows.
constexpr std::int64_t kFetchAhead = 512;
/// Features of a register tile: rows * features accumulators + rows of x + 1 or 2 of the weight fit the
/// registers.
constexpr int tile_features(int rows) {
  if (kHas32Registers) return rows == 4 ? 6 : 8;
  return rows == 1 ? 8 : 4;
}
static_assert(kFeatureBlock % kLanes == 0 && kFeatureBlock % 8 == 0 && kFeatureBlock % 6 == 0);

/// The accumulators of one block: [row][feature][lane].
constexpr std::int64_t kAccumulatorRow = kFeatureBlock * kLanes;

/// Rows of x times rows of a weight, or of its widened chunk.
template <class W>
struct Product {
  const float* x;
  const W* w;
  std::int64_t x_stride, w_stride, k;
  float* accumulators;  // of x's first row and w's first row
  bool resume;          // false: start from zero

  Product at(std::int64_t row, std::int64_t feature) const {
    return {x + row * x_stride,
            w + feature * w_stride,
            x_stride,
            w_stride,
            k,
            accumulators + row * kAccumulatorRow + feature * kLanes,
            resume};
  }
};

/// accumulators[r][f] (+)= x[r][0..k) * w[f][0..k) for a tile.
template <int kRows, int kFeatures, class W>
HWY_INLINE void dot_tile(const Product<W>& p) {
  // Stored weights come from memory, in as many streams as the tile has features; at a row's end the stream
  // goes on in the next tile's row (beyond the last one there is nothing to fetch, which does no harm).
  // Widened ones are in L1.
  constexpr bool kFetch = !std::is_same_v<W, float>;
  constexpr std::int64_t kLine = 64 / static_cast<std::int64_t>(sizeof(W));
  const F32 d;
  const float* HWY_RESTRICT x = p.x;
  const W* HWY_RESTRICT w = p.w;
  float* HWY_RESTRICT accumulators = p.accumulators;
  V32 sum[kRows][kFeatures];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int f = 0; f < kFeatures; ++f) {
      sum[r][f] = p.resume ? hn::Load(d, accumulators + r * kAccumulatorRow + f * kLanes) : hn::Zero(d);
    }
  }
  const auto multiply = [&](const V32* xs, std::int64_t i, auto load) HWY_ATTR {
#pragma GCC unroll 8
    for (int f = 0; f < kFeatures; ++f) {
      const V32 ws = load(w + f * p.w_stride + i);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) sum[r][f] = hn::MulAdd(xs[r], ws, sum[r][f]);
    }
  };
  std::int64_t i = 0;
  for (; i + kLanes <= p.k; i += kLanes) {
    V32 xs[kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) xs[r] = load_f32(x + r * p.x_stride + i);
    if (kFetch && i % kLine == 0) {
      const std::int64_t ahead = i + kFetchAhead;
      const W* from = w + (ahead < p.k ? ahead : ahead - p.k + kFeatures * p.w_stride);
#pragma GCC unroll 8
      for (int f = 0; f < kFeatures; ++f) __builtin_prefetch(from + f * p.w_stride);
    }
    multiply(xs, i, [](const W* from) HWY_ATTR { return load_f32(from); });
  }
  if (const std::int64_t rest = p.k - i; rest > 0) {
    V32 xs[kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) xs[r] = load_f32_first(x + r * p.x_stride + i, rest);
    multiply(xs, i, [rest](const W* from) HWY_ATTR { return load_f32_first(from, rest); });
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int f = 0; f < kFeatures; ++f) {
      hn::Store(sum[r][f], d, accumulators + r * kAccumulatorRow + f * kLanes);
    }
  }
}

/// One strip of kRows rows over `features` <= kFeatureBlock features: full tiles, then pairs, then one.
template <int kRows, class W>
void dot_strip(const Product<W>& p, std::int64_t features) {
  constexpr int kFeatures = tile_features(kRows);
  std::int64_t f = 0;
  for (; f + kFeatures <= features; f += kFeatures) dot_tile<kRows, kFeatures>(p.at(0, f));
  for (; f + 2 <= features; f += 2) dot_tile<kRows, 2>(p.at(0, f));
  if (f < features) dot_tile<kRows, 1>(p.at(0, f));
}

/// All rows in strips; calls before_strip(first row) ahead of each full strip.
template <class W, class BeforeStrip>
void dot_rows(const Product<W>& p, std::int64_t rows, std::int64_t features,
              const BeforeStrip& before_strip) {
  std::int64_t r = 0;
  for (; r + kTileRows <= rows; r += kTileRows) {
    before_strip(r);
    dot_strip<kTileRows>(p.at(r, 0), features);
  }
  switch (rows - r) {
    case 3:
      return dot_strip<3>(p.at(r, 0), features);
    case 2:
      return dot_strip<2>(p.at(r, 0), features);
    case 1:
      return dot_strip<1>(p.at(r, 0), features);
    default:
      return;
  }
}

/// LinearArgs lowered to typed pointers.
template <class W>
struct Params {
  const float* x;
  const W* w;
  const std::byte* bias;
  bool bias_is_bf16;
  const float* residual;
  float* y;
  std::int64_t x_stride, residual_stride, y_stride;
  std::int64_t rows, features, k;
  Epilogue epilogue;
};

template <class W>
HWY_INLINE V32 load_bias(const Params<W>& p, std::int64_t feature, std::int64_t n) {
  if (p.bias == nullptr) return hn::Zero(F32{});
  if (p.bias_is_bf16) {
    const auto* b = reinterpret_cast<const BFloat16*>(p.bias) + feature;
    return n >= kLanes ? load_f32(b) : load_f32_first(b, n);
  }
  const auto* b = reinterpret_cast<const Half*>(p.bias) + feature;
  return n >= kLanes ? load_f32(b) : load_f32_first(b, n);
}

/// Reduces the block's accumulators and writes y: rows [row, row + rows), features [feature, feature + n).
template <class W>
void finish_block(const Params<W>& p, std::int64_t row, std::int64_t rows, std::int64_t feature,
                  std::int64_t n, const float* accumulators) {
  for (std::int64_t f = 0; f < n; f += kLanes) {
    const std::int64_t count = std::min(n - f, kLanes);
    const V32 bias = load_bias(p, feature + f, count);
    for (std::int64_t r = 0; r < rows; ++r) {
      // Lanes beyond `count` hold leftovers and are not stored.
      V32 value = hn::Add(reduce_lanes(accumulators + r * kAccumulatorRow + f * kLanes), bias);
      value = apply_epilogue(p.epilogue, value);
      float* y = p.y + (row + r) * p.y_stride + feature + f;
      const float* residual =
          p.residual == nullptr ? nullptr : p.residual + (row + r) * p.residual_stride + feature + f;
      if (count == kLanes) {
        if (residual != nullptr) value = hn::Add(value, load_f32(residual));
        store_f32(value, y);
      } else {
        if (residual != nullptr) value = hn::Add(value, load_f32_first(residual, count));
        store_f32_first(value, y, count);
      }
    }
  }
}

/// All of up to kFewRows rows for one block of features; each tile of the weight comes from memory once.
template <class W>
void few_rows(const Params<W>& p, std::int64_t feature, std::int64_t n) {
  HWY_ALIGN float accumulators[kFewRows * kAccumulatorRow];
  const Product<W> product{p.x, p.w + feature * p.k, p.x_stride, p.k, p.k, accumulators, /*resume=*/false};
  const std::int64_t together = p.rows <= kTileRows ? n : tile_features(kTileRows);
  for (std::int64_t f = 0; f < n; f += together) {
    dot_rows<W>(product.at(0, f), p.rows, std::min(n - f, together), [](std::int64_t) {});
  }
  finish_block(p, 0, p.rows, feature, n, accumulators);
}

/// Widens k columns [0, chunk) of `features` rows, zeros behind the last up to a whole vector.
template <class W>
void widen(const W* w, std::int64_t w_stride, std::int64_t features, std::int64_t chunk, float* to) {
  for (std::int64_t f = 0; f < features; ++f, w += w_stride, to += kChunk) {
    std::int64_t i = 0;
    for (; i + kLanes <= chunk; i += kLanes) store_f32(load_f32(w + i), to + i);
    if (i < chunk) store_f32(load_f32_first(w + i, chunk - i), to + i);
  }
}

/// A block of rows and features, in chunks of k.
template <class W>
void many_rows(const Params<W>& p, std::int64_t row, std::int64_t rows, std::int64_t feature,
               std::int64_t n) {
  HWY_ALIGN float accumulators[kRowBlock * kAccumulatorRow];
  constexpr int kFeatures = tile_features(kTileRows);
  HWY_ALIGN float widened[kFeatures * kChunk];
  constexpr std::int64_t kLine = 64 / static_cast<std::int64_t>(sizeof(W));
  for (std::int64_t k = 0; k < p.k; k += kChunk) {
    const std::int64_t chunk = std::min(p.k - k, kChunk);
    for (std::int64_t f = 0; f < n; f += kFeatures) {
      const std::int64_t features = std::min<std::int64_t>(n - f, kFeatures);
      const W* w = p.w + (feature + f) * p.k + k;
      widen(w, p.k, features, chunk, widened);
      // The next features' part of this chunk comes from memory meanwhile, some lines with each strip.
      const W* next = w + kFeatures * p.k;
      const std::int64_t lines = f + kFeatures < n ? kFeatures * (chunk / kLine) : 0;
      dot_rows<float>(
          {p.x + row * p.x_stride + k, widened, p.x_stride, kChunk, chunk, accumulators + f * kLanes,
           /*resume=*/k > 0},
          rows, features, [&](std::int64_t strip_row) __attribute__((always_inline)) {  // else GCC drops it
            const std::int64_t end = std::min(strip_row + kTileRows, rows) * lines / rows;
            for (std::int64_t i = strip_row * lines / rows; i < end; ++i) {
              __builtin_prefetch(next + i % kFeatures * p.k + i / kFeatures * kLine, 0, 2);
            }
          });
    }
  }
  finish_block(p, row, rows, feature, n, accumulators);
}

template <class W>
void linear_typed(const LinearArgs& args, ThreadPool& pool) {
  const Params<W> p{reinterpret_cast<const float*>(args.x.data),
                    reinterpret_cast<const W*>(args.weight.data.data()),
                    args.bias.data,
                    args.bias.dtype == DType::kBF16,
                    reinterpret_cast<const float*>(args.residual.data),
                    reinterpret_cast<float*>(args.y.data),
                    args.x.stride,
                    args.residual.stride,
                    args.y.stride,
                    args.x.rows,
                    args.weight.rows,
                    args.weight.cols,
                    args.epilogue};
  const std::int64_t feature_blocks = div_up(p.features, kFeatureBlock);
  if (p.rows <= kFewRows) {
    pool.parallel_for(feature_blocks, 1, [&](std::int64_t begin, std::int64_t) HWY_ATTR {
      const std::int64_t feature = begin * kFeatureBlock;
      few_rows(p, feature, std::min(p.features - feature, kFeatureBlock));
    });
    return;
  }
  // Row blocks one after the other: a block of x stays in L2 while all features pass, whose weights are
  // fetched ahead; the other way round x would come from L3 for each block of features.
  const std::int64_t row_blocks = div_up(p.rows, kRowBlock);
  pool.parallel_for(row_blocks * feature_blocks, 1, [&](std::int64_t begin, std::int64_t) HWY_ATTR {
    const std::int64_t row = begin / feature_blocks * kRowBlock;
    const std::int64_t feature = begin % feature_blocks * kFeatureBlock;
    many_rows(p, row, std::min(p.rows - row, kRowBlock), feature,
              std::min(p.features - feature, kFeatureBlock));
  });
}

void linear_any(const LinearArgs& args, ThreadPool& pool) {
  if (args.weight.format == WeightFormat::kDenseF16) {
    linear_typed<Half>(args, pool);
  } else {
    linear_typed<BFloat16>(args, pool);
  }
}

}  // namespace sluice::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::kernels::detail {
namespace {
HWY_EXPORT(linear_any);
}
void linear_cpu(const LinearArgs& args, ThreadPool& pool) { HWY_DYNAMIC_DISPATCH(linear_any)(args, pool); }
}  // namespace sluice::kernels::detail
#endif
