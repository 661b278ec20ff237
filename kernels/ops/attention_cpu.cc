// Attention over paged KV on the CPU.
//
// A task is one KV head of one segment and up to kMaxItems queries of it; a query ("item") is one row of one
// of the query heads that share the KV head. Page by page, for all items of the task together:
//   scores   s[i][t] = scale * q[i] . K[t]   in tiles of items x tokens; each dot product has one accumulator
//            vector over head_dim, zero-padded, reduced by reduce_lanes()
//   softmax  m = max, p = exp(s - m), l = sum p over the page's 64 slots, invisible ones masked to zero
//   merge    the page's out = sum_t p[t] V[t], in token order from zero, is scaled into the item's running
//            (max, sum, out)
// No step of an item depends on the items beside it, so results do not depend on how rows are grouped. A page
// is read from memory once for all items of the task. Up to kItemTile items (decode) K and V are widened from
// their stored type in registers; with more, a page's K, then its V, are widened once into an L1/L2 buffer.
// This file is compiled once per SIMD target; the order of these includes makes it so.
// clang-format off
#include "kernels/device/cpu/simd_targets.h"
#define HWY_TARGET_INCLUDE "kernels/ops/attention_cpu.cc"
#include "hwy/foreach_target.h"
#include "kernels/device/cpu/simd_inl.h"
#include "hwy/contrib/math/math-inl.h"
// clang-format on

#include <algorithm>
#include <limits>
#include <type_traits>

#include "kernels/ops/cpu_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::kernels::HWY_NAMESPACE {

constexpr std::int64_t kMaxItems = 64;
constexpr std::int64_t kMaxHeadDim = 256;
constexpr int kItemTile = 4;
constexpr std::int64_t kPage = kKvPageTokens;
static_assert(kMaxHeadDim % kLanes == 0 && kPage % kLanes == 0);

/// Tokens of a score tile and vectors of an output tile: items * that accumulators fit the registers.
constexpr int tile_width(int items) {
  if (kHas32Registers) return items >= 3 ? 4 : 8;
  return items == 1 ? 8 : items == 4 ? 2 : 4;
}

/// One task, and the state of its items between pages.
struct Task {
  std::int64_t head_dim, padded_dim;  // padded to whole vectors; the rest is zero
  std::int64_t num_items;
  float scale;
  HWY_ALIGN float q[kMaxItems * kMaxHeadDim];      // [item][padded_dim]
  HWY_ALIGN float out[kMaxItems * kMaxHeadDim];    // [item][padded_dim], not yet divided by sum
  HWY_ALIGN float max[kMaxItems], sum[kMaxItems];  // running
  HWY_ALIGN float keep[kMaxItems],
      take[kMaxItems];                        // factors of the running and of the page's out in the merge
  std::int64_t visible[kMaxItems];            // columns [0, visible) are seen; never falls with the item
  HWY_ALIGN float scores[kMaxItems * kPage];  // [item][token], then the probabilities
  HWY_ALIGN float accumulators[kItemTile * kPage * kLanes];  // [item of the tile][token][lane]
  HWY_ALIGN float widened[kPage * kMaxHeadDim];              // [token][padded_dim]

  /// How many columns of the page that starts at `first` item i sees.
  std::int64_t columns(std::int64_t i, std::int64_t first) const {
    return std::clamp<std::int64_t>(visible[i] - first, 0, kPage);
  }
};

/// Vector `i` of a row of `dim` elements; beyond the row it is zero.
template <class T>
HWY_INLINE V32 load_column(const T* row, std::int64_t i, std::int64_t dim) {
  return i + kLanes <= dim ? load_f32(row + i) : load_f32_first(row + i, dim - i);
}

// --- scores -----------------------------------------------------------------------------------------------

template <int kItems, int kTokens, class T>
HWY_INLINE void score_tile(const float* HWY_RESTRICT q, std::int64_t q_stride, const T* HWY_RESTRICT k,
                           std::int64_t k_stride, std::int64_t dim, float* HWY_RESTRICT accumulators) {
  const F32 d;
  V32 sum[kItems][kTokens];
#pragma GCC unroll 8
  for (int r = 0; r < kItems; ++r) {
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) sum[r][t] = hn::Zero(d);
  }
  const auto step = [&](std::int64_t i, auto load) HWY_ATTR {
    V32 qs[kItems];
#pragma GCC unroll 8
    for (int r = 0; r < kItems; ++r) qs[r] = hn::Load(d, q + r * q_stride + i);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const V32 ks = load(k + t * k_stride + i);
#pragma GCC unroll 8
      for (int r = 0; r < kItems; ++r) sum[r][t] = hn::MulAdd(qs[r], ks, sum[r][t]);
    }
  };
  std::int64_t i = 0;
  for (; i + kLanes <= dim; i += kLanes) step(i, [](const T* p) HWY_ATTR { return load_f32(p); });
  if (const std::int64_t rest = dim - i; rest > 0) {
    step(i, [rest](const T* p) HWY_ATTR { return load_f32_first(p, rest); });
  }
#pragma GCC unroll 8
  for (int r = 0; r < kItems; ++r) {
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) hn::Store(sum[r][t], d, accumulators + (r * kPage + t) * kLanes);
  }
}

/// Scores of items [item, item + kItems) against the first `columns` tokens of K (some more are computed).
template <int kItems, class T>
void score_strip(Task& task, std::int64_t item, const T* k, std::int64_t k_stride, std::int64_t dim,
                 std::int64_t columns) {
  const F32 d;
  constexpr int kTokens = tile_width(kItems);
  for (std::int64_t t = 0; t < columns; t += kTokens) {
    score_tile<kItems, kTokens>(task.q + item * task.padded_dim, task.padded_dim, k + t * k_stride, k_stride,
                                dim, task.accumulators + t * kLanes);
  }
  const V32 scale = hn::Set(d, task.scale);
  for (int r = 0; r < kItems; ++r) {
    for (std::int64_t t = 0; t < columns; t += kLanes) {
      const V32 dots = reduce_lanes(task.accumulators + (r * kPage + t) * kLanes);
      hn::Store(hn::Mul(dots, scale), d, task.scores + (item + r) * kPage + t);
    }
  }
}

// --- softmax of one page and the running maximum and sum
// ----------------------------------------------------

void softmax_page(Task& task, std::int64_t item, std::int64_t columns, bool first_page) {
  const F32 d;
  float* scores = task.scores + item * kPage;
  const V32 lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  const auto visible = [&](std::int64_t t) HWY_ATTR {
    return hn::FirstN(d, static_cast<std::size_t>(std::clamp<std::int64_t>(columns - t, 0, kLanes)));
  };
  V32 maxima = lowest;
  for (std::int64_t t = 0; t < kPage; t += kLanes) {
    maxima = hn::Max(maxima, hn::IfThenElse(visible(t), hn::Load(d, scores + t), lowest));
  }
  const float page_max = max_of_lanes(maxima);
  const V32 shift = hn::Set(d, page_max);
  V32 sums = hn::Zero(d);
  for (std::int64_t t = 0; t < kPage; t += kLanes) {
    const V32 p = hn::IfThenElseZero(visible(t), hn::Exp(d, hn::Sub(hn::Load(d, scores + t), shift)));
    hn::Store(p, d, scores + t);
    sums = hn::Add(sums, p);
  }
  const float page_sum = sum_of_lanes(sums);
  if (first_page) {
    task.max[item] = page_max;
    task.sum[item] = page_sum;
    task.keep[item] = 0.0F;
    task.take[item] = 1.0F;
    return;
  }
  const float old_max = task.max[item];
  const float new_max = page_max > old_max ? page_max : old_max;
  const float keep = hn::GetLane(hn::Exp(d, hn::Set(d, old_max - new_max)));
  const float take = hn::GetLane(hn::Exp(d, hn::Set(d, page_max - new_max)));
  task.max[item] = new_max;
  task.sum[item] = task.sum[item] * keep + page_sum * take;
  task.keep[item] = keep;
  task.take[item] = take;
}

// --- probabilities times V, merged into the running output
// ---------------------------------------------------

/// Columns [i, i + kVectors * kLanes) of the output of kItems items. `columns[r]` tokens of item r count; the
/// first columns[0] are common to all. An item's sum runs over its own tokens only, in token order.
template <int kItems, int kVectors, class T, class Load>
HWY_INLINE void value_tile(Task& task, std::int64_t item, const std::int64_t* columns,
                           const T* HWY_RESTRICT v, std::int64_t v_stride, std::int64_t i, const Load& load) {
  const F32 d;
  const float* p = task.scores + item * kPage;
  V32 sum[kItems][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kItems; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) sum[r][c] = hn::Zero(d);
  }
  for (std::int64_t t = 0; t < columns[0]; ++t) {
    V32 ps[kItems];
#pragma GCC unroll 8
    for (int r = 0; r < kItems; ++r) ps[r] = hn::Set(d, p[r * kPage + t]);
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) {
      const V32 vs = load(v + t * v_stride + i + c * kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < kItems; ++r) sum[r][c] = hn::MulAdd(ps[r], vs, sum[r][c]);
    }
  }
#pragma GCC unroll 8
  for (int r = 1; r < kItems; ++r) {
    for (std::int64_t t = columns[0]; t < columns[r]; ++t) {
      const V32 ps = hn::Set(d, p[r * kPage + t]);
#pragma GCC unroll 8
      for (int c = 0; c < kVectors; ++c) {
        sum[r][c] = hn::MulAdd(ps, load(v + t * v_stride + i + c * kLanes), sum[r][c]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kItems; ++r) {
    const V32 keep = hn::Set(d, task.keep[item + r]);
    const V32 take = hn::Set(d, task.take[item + r]);
    float* out = task.out + (item + r) * task.padded_dim + i;
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) {
      const V32 old = hn::Load(d, out + c * kLanes);
      hn::Store(hn::MulAdd(sum[r][c], take, hn::Mul(old, keep)), d, out + c * kLanes);
    }
  }
}

template <int kItems, class T>
void value_strip(Task& task, std::int64_t item, std::int64_t page_first, const T* v, std::int64_t v_stride,
                 std::int64_t dim) {
  constexpr int kVectors = tile_width(kItems);
  std::int64_t columns[kItems];
  for (int r = 0; r < kItems; ++r) columns[r] = task.columns(item + r, page_first);
  const auto full = [](const T* p) HWY_ATTR { return load_f32(p); };
  std::int64_t i = 0;
  for (; i + kVectors * kLanes <= dim; i += kVectors * kLanes) {
    value_tile<kItems, kVectors>(task, item, columns, v, v_stride, i, full);
  }
  for (; i + kLanes <= dim; i += kLanes) value_tile<kItems, 1>(task, item, columns, v, v_stride, i, full);
  if (const std::int64_t rest = dim - i; rest > 0) {
    value_tile<kItems, 1>(task, item, columns, v, v_stride, i,
                          [rest](const T* p) HWY_ATTR { return load_f32_first(p, rest); });
  }
}

// --- pages ------------------------------------------------------------------------------------------------

/// Calls strip(integral_constant<items>, first item) for items [first, end) in strips of kItemTile and a
/// rest.
template <class Strip>
HWY_INLINE void for_each_strip(std::int64_t first, std::int64_t end, const Strip& strip) {
  for (; first + kItemTile <= end; first += kItemTile) strip(std::integral_constant<int, kItemTile>{}, first);
  switch (end - first) {
    case 3:
      return strip(std::integral_constant<int, 3>{}, first);
    case 2:
      return strip(std::integral_constant<int, 2>{}, first);
    case 1:
      return strip(std::integral_constant<int, 1>{}, first);
    default:
      return;
  }
}

template <class T>
void widen_rows(const T* rows, std::int64_t num_rows, const Task& task, float* to) {
  for (std::int64_t t = 0; t < num_rows; ++t) {
    for (std::int64_t i = 0; i < task.padded_dim; i += kLanes) {
      hn::Store(load_column(rows + t * task.head_dim + i, 0, task.head_dim - i), F32{},
                to + t * task.padded_dim + i);
    }
  }
}

template <class T>
void score_page(Task& task, std::int64_t first_item, std::int64_t page_first, const T* k,
                std::int64_t k_stride, std::int64_t dim) {
  for_each_strip(first_item, task.num_items, [&](auto items, std::int64_t item) HWY_ATTR {
    constexpr int kItems = decltype(items)::value;
    score_strip<kItems>(task, item, k, k_stride, dim, task.columns(item + kItems - 1, page_first));
  });
}

template <class T>
void value_page(Task& task, std::int64_t first_item, std::int64_t page_first, const T* v,
                std::int64_t v_stride, std::int64_t dim) {
  for_each_strip(first_item, task.num_items, [&](auto items, std::int64_t item) HWY_ATTR {
    value_strip<decltype(items)::value>(task, item, page_first, v, v_stride, dim);
  });
}

/// One page for the items from `first_item` on, which all see at least its first column.
template <class T>
void attend_page(Task& task, std::int64_t first_item, std::int64_t page_first, const T* k, const T* v) {
  const bool widen = task.num_items - first_item > kItemTile;
  const std::int64_t columns = task.columns(task.num_items - 1, page_first);
  if (widen) {
    // Score tiles compute whole groups of tokens, so whole pages are widened.
    widen_rows(k, kPage, task, task.widened);
    score_page<float>(task, first_item, page_first, task.widened, task.padded_dim, task.padded_dim);
  } else {
    score_page<T>(task, first_item, page_first, k, task.head_dim, task.head_dim);
  }
  for (std::int64_t i = first_item; i < task.num_items; ++i) {
    softmax_page(task, i, task.columns(i, page_first), page_first == 0);
  }
  if (widen) {
    widen_rows(v, columns, task, task.widened);
    value_page<float>(task, first_item, page_first, task.widened, task.padded_dim, task.padded_dim);
  } else {
    value_page<T>(task, first_item, page_first, v, task.head_dim, task.head_dim);
  }
}

/// Items [first, first + n) of one KV head of one segment.
template <class T>
void attend(const AttentionArgs& args, const PagedSegment& segment, std::int64_t kv_head, std::int64_t first,
            std::int64_t n) {
  const F32 d;
  const KvLayout& layout = args.layout;
  const std::int64_t group = args.num_heads / layout.num_kv_heads;
  Task task;  // NOLINT: left uninitialised, it is large and each item writes what it reads
  task.head_dim = layout.head_dim;
  task.padded_dim = align_up(layout.head_dim, kLanes);
  task.num_items = n;
  task.scale = args.scale;
  const auto row_of = [&](std::int64_t i) { return segment.first_row + (first + i) / group; };
  const auto column_of = [&](std::int64_t i) {
    return (kv_head * group + (first + i) % group) * layout.head_dim;
  };
  const auto visible_of = [&](std::int64_t i) {
    return std::max<std::int64_t>(segment.first_kv + (first + i) / group + 1, segment.full_prefix);
  };
  for (std::int64_t i = 0; i < n; ++i) {
    const float* q = reinterpret_cast<const float*>(args.q.data) + row_of(i) * args.q.stride + column_of(i);
    for (std::int64_t c = 0; c < task.padded_dim; c += kLanes) {
      hn::Store(load_column(q, c, task.head_dim), d, task.q + i * task.padded_dim + c);
      hn::Store(hn::Zero(d), d, task.out + i * task.padded_dim + c);
    }
    task.visible[i] = visible_of(i);
  }

  std::int64_t first_item = 0;
  for (std::int64_t page_first = 0; page_first < visible_of(n - 1); page_first += kPage) {
    while (task.visible[first_item] <= page_first) ++first_item;
    const std::byte* page = segment.pages[page_first / kPage];
    attend_page(task, first_item, page_first, reinterpret_cast<const T*>(page + layout.k_offset(kv_head)),
                reinterpret_cast<const T*>(page + layout.v_offset(kv_head)));
  }

  for (std::int64_t i = 0; i < n; ++i) {
    float* out = reinterpret_cast<float*>(args.out.data) + row_of(i) * args.out.stride + column_of(i);
    const V32 sum = hn::Set(d, task.sum[i]);
    for (std::int64_t c = 0; c < task.head_dim; c += kLanes) {
      const V32 value = hn::Div(hn::Load(d, task.out + i * task.padded_dim + c), sum);
      if (c + kLanes <= task.head_dim) {
        store_f32(value, out + c);
      } else {
        store_f32_first(value, out + c, task.head_dim - c);
      }
    }
  }
}

template <class T>
void attention_typed(const AttentionArgs& args, ThreadPool& pool) {
  const std::int64_t heads = args.layout.num_kv_heads;
  const std::int64_t group = args.num_heads / heads;
  const auto num_segments = static_cast<std::int64_t>(args.segments.size());
  const auto items_of = [&](const PagedSegment& segment) { return segment.num_rows * group; };
  // Segments of one task per KV head: all at once, a sequence's heads one after the other as they lie in a
  // page.
  pool.parallel_for(num_segments * heads, 1, [&](std::int64_t begin, std::int64_t) HWY_ATTR {
    const PagedSegment& segment = args.segments[static_cast<std::size_t>(begin / heads)];
    const std::int64_t items = items_of(segment);
    if (items > 0 && items <= kMaxItems) attend<T>(args, segment, begin % heads, 0, items);
  });
  // Longer ones one by one, their tasks from the last rows (which see the most) to the first.
  for (const PagedSegment& segment : args.segments) {
    const std::int64_t items = items_of(segment);
    if (items <= kMaxItems) continue;
    const std::int64_t chunks = div_up(items, kMaxItems);
    pool.parallel_for(chunks * heads, 1, [&](std::int64_t begin, std::int64_t) HWY_ATTR {
      const std::int64_t first = (chunks - 1 - begin / heads) * kMaxItems;
      attend<T>(args, segment, begin % heads, first, std::min(items - first, kMaxItems));
    });
  }
}

void attention_any(const AttentionArgs& args, ThreadPool& pool) {
  if (args.layout.format == KvFormat::kF16) {
    attention_typed<Half>(args, pool);
  } else {
    attention_typed<float>(args, pool);
  }
}

}  // namespace sluice::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::kernels::detail {
namespace {
HWY_EXPORT(attention_any);
}
void attention_cpu(const AttentionArgs& args, ThreadPool& pool) {
  HWY_DYNAMIC_DISPATCH(attention_any)(args, pool);
}
}  // namespace sluice::kernels::detail
#endif
