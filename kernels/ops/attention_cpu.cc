// Attention over paged KV on the CPU.
//
// A task is one KV head of one segment and up to kMaxItems queries of it; a query ("item") is one row of one
// of the query heads that share the KV head. Page by page, for all items of the task together:
//   scores   s[i][t] = scale * q[i] . K[t]   in tiles of items x tokens; each dot product has one accumulator
//            vector over head_dim, zero-padded, and is reduced by reduce_lanes()
//   softmax  m = max, p = exp(s - m), l = sum p over the page's 64 slots, invisible ones masked to zero
//   merge    the page's out = sum_t p[t] V[t], in token order from zero, is scaled into the item's running
//            (max, sum, out)
// No step of an item depends on the items beside it, so results do not depend on how rows are grouped. A page
// is read from memory once for all items of the task. Up to kItemTile items (decode) K and V are widened from
// their stored type in registers; with more, a page's K, then its V, are widened once into an L1/L2 buffer.
//
// This file is compiled once per SIMD target; the order of these includes makes it so.
// clang-format off
#include "kernels/device/cpu/simd_targets.h"
#define HWY_TARGET_INCLUDE "kernels/ops/attention_cpu.cc"
#include "hwy/foreach_target.h"
#include "kernels/device/cpu/simd_inl.h"
#include "hwy/contrib/math/math-inl.h"
#include "kernels/ops/kv_fetcher_inl.h"
// clang-format on

#include <algorithm>
#include <cstring>
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

/// Dot products of a score tile: whole vectors of results, and enough to hide the latency of multiply-add.
constexpr int kDots = kLanes > 8 ? static_cast<int>(kLanes) : 8;
/// Vectors of an output tile: items * that accumulators fit the registers.
constexpr int value_vectors(int items) {
  if (kHas32Registers) return items == 4 ? 4 : 8;
  return items == 1 ? 8 : items == 2 ? 4 : 2;
}

/// One task, and the state of its items between pages.
struct Task {
  std::int64_t head_dim, padded_dim;  // padded to whole vectors; the rest is zero
  std::int64_t num_items;
  float scale;
  KvFetcher* fetcher;
  std::int64_t visible[kMaxItems];               // columns [0, visible) are seen; never falls with the item
  HWY_ALIGN float q[kMaxItems * kMaxHeadDim];    // [item][padded_dim]
  HWY_ALIGN float out[kMaxItems * kMaxHeadDim];  // [item][padded_dim], not yet divided by sum
  // Per item, with room for a vector behind the last one.
  float max[kMaxItems + kLanes], sum[kMaxItems + kLanes];            // running
  float page_max[kMaxItems + kLanes], page_sum[kMaxItems + kLanes];  // of the page at hand
  float keep[kMaxItems + kLanes], take[kMaxItems + kLanes];  // factors of the running out and the page's
  HWY_ALIGN float scores[kMaxItems * kPage];                 // [item][token], then the probabilities
  HWY_ALIGN float widened[kPage * kMaxHeadDim];              // [token][padded_dim]

  /// How many columns of the page that starts at `first` item i sees.
  std::int64_t columns(std::int64_t i, std::int64_t first) const {
    return std::clamp<std::int64_t>(visible[i] - first, 0, kPage);
  }
};

/// K or V of one head of one page: kPage rows, `stride` apart, of `dim` elements; as stored, or widened.
template <class T, bool kStored_>
struct Rows {
  using Element = T;
  static constexpr bool kStored = kStored_;
  const T* data;
  std::int64_t stride, dim;
};

/// Vector `i` of a row of `dim` elements; beyond the row it is zero.
template <class T>
HWY_INLINE V32 load_column(const T* row, std::int64_t i, std::int64_t dim) {
  return i + kLanes <= dim ? load_f32(row + i) : load_f32_first(row + i, dim - i);
}

// --- scores -----------------------------------------------------------------------------------------------

/// scores[r][0..kDots / kItems) of kItems items at `q` against the tokens from t on.
template <int kItems, class K>
HWY_INLINE void score_tile(const float* HWY_RESTRICT q, std::int64_t q_stride, const K& k, std::int64_t t,
                           float scale, KvFetcher& fetcher, float* HWY_RESTRICT scores) {
  using T = typename K::Element;
  constexpr int kTokens = kDots / kItems;
  const F32 d;
  const T* HWY_RESTRICT rows = k.data + t * k.stride;
  V32 sum[kDots];  // [item][token]
#pragma GCC unroll 16
  for (int i = 0; i < kDots; ++i) sum[i] = hn::Zero(d);
  const auto step = [&](std::int64_t i, auto load) HWY_ATTR {
    V32 qs[kItems];
#pragma GCC unroll 4
    for (int r = 0; r < kItems; ++r) qs[r] = hn::Load(d, q + r * q_stride + i);
#pragma GCC unroll 16
    for (int c = 0; c < kTokens; ++c) {
      const V32 ks = load(rows + c * k.stride + i);
#pragma GCC unroll 4
      for (int r = 0; r < kItems; ++r) sum[r * kTokens + c] = hn::MulAdd(qs[r], ks, sum[r * kTokens + c]);
    }
  };
  std::int64_t i = 0;
  for (; i + kLanes <= k.dim; i += kLanes) {
    if (K::kStored) fetcher.fetch<lines_of<T>(kLanes * kTokens)>();
    step(i, [](const T* p) HWY_ATTR { return load_f32(p); });
  }
  if (const std::int64_t rest = k.dim - i; rest > 0) {
    step(i, [rest](const T* p) HWY_ATTR { return load_f32_first(p, rest); });
  }
  HWY_ALIGN float dots[kDots];
#pragma GCC unroll 8
  for (int first = 0; first < kDots; first += static_cast<int>(kLanes)) {
    hn::Store(hn::Mul(reduce_lanes(sum + first), hn::Set(d, scale)), d, dots + first);
  }
#pragma GCC unroll 4
  for (int r = 0; r < kItems; ++r)
    std::memcpy(scores + r * kPage, dots + r * kTokens, kTokens * sizeof(float));
}

/// Scores of items [item, item + kItems) against the tokens that the last of them sees (some more are
/// computed).
template <int kItems, class K>
void score_strip(Task& task, std::int64_t item, std::int64_t page_first, const K& k) {
  const std::int64_t columns = task.columns(item + kItems - 1, page_first);
  for (std::int64_t t = 0; t < columns; t += kDots / kItems) {
    score_tile<kItems>(task.q + item * task.padded_dim, task.padded_dim, k, t, task.scale, *task.fetcher,
                       task.scores + item * kPage + t);
  }
}

// --- softmax of one page and the running maximum and sum
// ----------------------------------------------------

/// Turns the item's scores into probabilities relative to the page's maximum, and notes maximum and sum.
void softmax_page(Task& task, std::int64_t item, std::int64_t columns) {
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
  const V32 max = hn::MaxOfLanes(d, maxima);
  V32 sums = hn::Zero(d);
  for (std::int64_t t = 0; t < kPage; t += kLanes) {
    task.fetcher->fetch<4>();
    const V32 p = hn::IfThenElseZero(visible(t), hn::Exp(d, hn::Sub(hn::Load(d, scores + t), max)));
    hn::Store(p, d, scores + t);
    sums = hn::Add(sums, p);
  }
  task.page_max[item] = hn::GetLane(max);
  task.page_sum[item] = sum_of_lanes(sums);
}

/// Merges maximum and sum of the page into the running ones of items [first, num_items), a vector of items at
/// a time, and notes the factors for their outputs. Lanes beyond the last item compute on leftovers.
void merge_sums(Task& task, std::int64_t first, bool first_page) {
  const F32 d;
  for (std::int64_t i = first; i < task.num_items; i += kLanes) {
    const V32 page_max = hn::LoadU(d, task.page_max + i);
    const V32 page_sum = hn::LoadU(d, task.page_sum + i);
    const V32 old_max = first_page ? page_max : hn::LoadU(d, task.max + i);
    const V32 max = hn::Max(old_max, page_max);
    // Before the first page there is nothing to keep, and the page is taken as it is.
    const V32 keep = first_page ? hn::Zero(d) : hn::Exp(d, hn::Sub(old_max, max));
    const V32 take = first_page ? hn::Set(d, 1.0F) : hn::Exp(d, hn::Sub(page_max, max));
    const V32 sum =
        first_page ? page_sum : hn::MulAdd(page_sum, take, hn::Mul(hn::LoadU(d, task.sum + i), keep));
    hn::StoreU(max, d, task.max + i);
    hn::StoreU(sum, d, task.sum + i);
    hn::StoreU(keep, d, task.keep + i);
    hn::StoreU(take, d, task.take + i);
  }
}

// --- probabilities times V, merged into the running output
// ---------------------------------------------------

/// Columns [i, i + kVectors * kLanes) of the output of kItems items. `columns[r]` tokens of item r count; the
/// first columns[0] are common to all. An item's sum runs over its own tokens only, in token order.
template <int kItems, int kVectors, class V, class Load>
HWY_INLINE void value_tile(Task& task, std::int64_t item, const std::int64_t* columns, const V& v,
                           std::int64_t i, const Load& load) {
  using T = typename V::Element;
  const F32 d;
  const float* HWY_RESTRICT p = task.scores + item * kPage;
  const T* HWY_RESTRICT rows = v.data + i;
  V32 sum[kItems][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kItems; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) sum[r][c] = hn::Zero(d);
  }
  for (std::int64_t t = 0; t < columns[0]; ++t) {
    if (V::kStored) task.fetcher->template fetch<lines_of<T>(kVectors * kLanes)>();
    V32 ps[kItems];
#pragma GCC unroll 8
    for (int r = 0; r < kItems; ++r) ps[r] = hn::Set(d, p[r * kPage + t]);
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) {
      const V32 vs = load(rows + t * v.stride + c * kLanes);
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
        sum[r][c] = hn::MulAdd(ps, load(rows + t * v.stride + c * kLanes), sum[r][c]);
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

template <int kItems, class V>
void value_strip(Task& task, std::int64_t item, std::int64_t page_first, const V& v) {
  using T = typename V::Element;
  constexpr int kVectors = value_vectors(kItems);
  std::int64_t columns[kItems];
  for (int r = 0; r < kItems; ++r) columns[r] = task.columns(item + r, page_first);
  const auto full = [](const T* p) HWY_ATTR { return load_f32(p); };
  std::int64_t i = 0;
  for (; i + kVectors * kLanes <= v.dim; i += kVectors * kLanes) {
    value_tile<kItems, kVectors>(task, item, columns, v, i, full);
  }
  for (; i + kLanes <= v.dim; i += kLanes) value_tile<kItems, 1>(task, item, columns, v, i, full);
  if (const std::int64_t rest = v.dim - i; rest > 0) {
    value_tile<kItems, 1>(task, item, columns, v, i,
                          [rest](const T* p) HWY_ATTR { return load_f32_first(p, rest); });
  }
}

// --- pages ------------------------------------------------------------------------------------------------

/// Calls strip(integral_constant<items>, first item) for items [first, end) in strips of 4, 2 and 1.
template <class Strip>
HWY_INLINE void for_each_strip(std::int64_t first, std::int64_t end, const Strip& strip) {
  for (; first + kItemTile <= end; first += kItemTile) strip(std::integral_constant<int, kItemTile>{}, first);
  if (first + 2 <= end) {
    strip(std::integral_constant<int, 2>{}, first);
    first += 2;
  }
  if (first < end) strip(std::integral_constant<int, 1>{}, first);
}

template <class K>
void score_page(Task& task, std::int64_t first_item, std::int64_t page_first, const K& k) {
  for_each_strip(first_item, task.num_items, [&](auto items, std::int64_t item) HWY_ATTR {
    score_strip<decltype(items)::value>(task, item, page_first, k);
  });
}

template <class V>
void value_page(Task& task, std::int64_t first_item, std::int64_t page_first, const V& v) {
  for_each_strip(first_item, task.num_items, [&](auto items, std::int64_t item) HWY_ATTR {
    value_strip<decltype(items)::value>(task, item, page_first, v);
  });
}

/// The first `count` rows in fp32, in the task's buffer.
template <class T>
Rows<float, false> widen(Task& task, const Rows<T, true>& rows, std::int64_t count) {
  for (std::int64_t t = 0; t < count; ++t) {
    for (std::int64_t i = 0; i < task.padded_dim; i += kLanes) {
      task.fetcher->template fetch<lines_of<T>(kLanes)>();
      hn::Store(load_column(rows.data + t * rows.stride, i, rows.dim), F32{},
                task.widened + t * task.padded_dim + i);
    }
  }
  return {task.widened, task.padded_dim, task.padded_dim};
}

/// One page for the items from `first_item` on, which all see at least its first column.
template <class T>
void attend_page(Task& task, std::int64_t first_item, std::int64_t page_first, const Rows<T, true>& k,
                 const Rows<T, true>& v) {
  const bool widened = task.num_items - first_item > kItemTile;
  if (widened) {
    // Score tiles compute whole groups of tokens, so the whole page is widened.
    score_page(task, first_item, page_first, widen(task, k, kPage));
  } else {
    score_page(task, first_item, page_first, k);
  }
  for (std::int64_t i = first_item; i < task.num_items; ++i) {
    softmax_page(task, i, task.columns(i, page_first));
  }
  merge_sums(task, first_item, page_first == 0);
  if (widened) {
    value_page(task, first_item, page_first, widen(task, v, task.columns(task.num_items - 1, page_first)));
  } else {
    value_page(task, first_item, page_first, v);
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
    with_elements(args.q.data, args.q.dtype, [&](const auto* data) HWY_ATTR {
      const auto* q = data + row_of(i) * args.q.stride + column_of(i);
      for (std::int64_t c = 0; c < task.padded_dim; c += kLanes) {
        hn::Store(load_column(q, c, task.head_dim), d, task.q + i * task.padded_dim + c);
        hn::Store(hn::Zero(d), d, task.out + i * task.padded_dim + c);
      }
    });
    task.visible[i] = visible_of(i);
  }

  const auto rows_of = [&](std::int64_t kv, std::int64_t offset) {
    return reinterpret_cast<const T*>(segment.pages[kv / kPage] + offset);
  };
  KvFetcher fetcher(segment, layout, kv_head, visible_of(n - 1));
  task.fetcher = &fetcher;
  std::int64_t first_item = 0;
  for (std::int64_t page_first = 0; page_first < visible_of(n - 1); page_first += kPage) {
    while (task.visible[first_item] <= page_first) ++first_item;
    fetcher.start_page(page_first / kPage);
    attend_page<T>(task, first_item, page_first,
                   {rows_of(page_first, layout.k_offset(kv_head)), layout.head_dim, layout.head_dim},
                   {rows_of(page_first, layout.v_offset(kv_head)), layout.head_dim, layout.head_dim});
  }

  for (std::int64_t i = 0; i < n; ++i) {
    float* result = task.out + i * task.padded_dim;
    const V32 sum = hn::Set(d, task.sum[i]);
    for (std::int64_t c = 0; c < task.padded_dim; c += kLanes)
      hn::Store(hn::Div(hn::Load(d, result + c), sum), d, result + c);
    with_elements(args.out.data, args.out.dtype, [&](auto* data) HWY_ATTR {
      store_row(result, task.head_dim, data + row_of(i) * args.out.stride + column_of(i));
    });
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
