// Paged KV for the attention tests: pages of one or more sequences, scattered in one guarded allocation.
#pragma once

#include <deque>
#include <vector>

#include "kernels/ops/attention.h"
#include "tests/kernels/kernel_support.h"

namespace sluice::kernels::testing {

/// Pages full of NaN until they are written.
class KvPages {
 public:
  explicit KvPages(const KvLayout& layout) : layout_(layout) {}

  /// A table of pages for `num_tokens` tokens. Stays valid as long as this object.
  const std::byte* const* add_sequence(std::int64_t num_tokens) {
    std::vector<const std::byte*>& table = tables_.emplace_back();
    for (std::int64_t p = 0; p < kv_pages(num_tokens); ++p) {
      table.push_back(
          storage_.emplace_back(static_cast<std::size_t>(layout_.page_bytes() + kGuard), kPoison).data());
    }
    return table.data();
  }

  void expect_guards_intact() const {
    for (const std::vector<std::byte>& page : storage_) {
      for (std::size_t i = static_cast<std::size_t>(layout_.page_bytes()); i < page.size(); ++i) {
        ASSERT_EQ(page[i], kPoison) << "written behind the page";
      }
    }
  }
  const KvLayout& layout() const { return layout_; }

 private:
  static constexpr std::int64_t kGuard = 64;
  static constexpr std::byte kPoison{0xFF};  // a NaN in fp16 and fp32

  KvLayout layout_;
  std::deque<std::vector<std::byte>> storage_;
  std::deque<std::vector<const std::byte*>> tables_;
};

/// A batch of ragged segments whose KV, earlier tokens included, is written.
struct AttentionBatch {
  AttentionBatch(const KvLayout& layout, std::int64_t query_heads, std::vector<PagedSegment> wanted,
                 Random& random, std::int64_t padding = 0)
      : pages(layout),
        num_heads(query_heads),
        segments(std::move(wanted)),
        q(GuardedMatrix::random(place(), query_heads * layout.head_dim, padding, random)) {
    const std::int64_t width = layout.num_kv_heads * layout.head_dim;
    ThreadPool pool(1);
    Stream stream(pool);
    for (PagedSegment& segment : segments) {
      const std::int64_t tokens =
          std::max<std::int64_t>(segment.first_kv + segment.num_rows, segment.full_prefix);
      segment.pages = pages.add_sequence(tokens);
      const GuardedMatrix k = GuardedMatrix::random(tokens, width, 0, random);
      const GuardedMatrix v = GuardedMatrix::random(tokens, width, 0, random);
      PagedSegment whole = segment;
      whole.first_kv = 0;
      whole.first_row = 0;
      whole.num_rows = static_cast<std::int32_t>(tokens);
      whole.kind = SegmentKind::kPrompt;
      kv_write({.k = k.view(), .v = v.view(), .segments = {&whole, 1}, .layout = layout}, stream);
    }
  }

  AttentionArgs args(GuardedMatrix& out) const {
    return {.q = q.view(),
            .segments = segments,
            .layout = pages.layout(),
            .num_heads = num_heads,
            .scale = 1.0F / std::sqrt(static_cast<float>(pages.layout().head_dim)),
            .out = out.view()};
  }
  GuardedMatrix output(std::int64_t padding = 0) const { return {q.rows(), q.cols(), padding}; }

  KvPages pages;
  std::int64_t num_heads;
  std::vector<PagedSegment> segments;
  GuardedMatrix q;

 private:
  /// Gives each segment its rows, one after the other; returns how many there are.
  std::int64_t place() {
    std::int32_t row = 0;
    for (PagedSegment& segment : segments) {
      segment.first_row = row;
      row += segment.num_rows;
    }
    return row;
  }
};

}  // namespace sluice::kernels::testing
