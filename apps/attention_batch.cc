#include "apps/attention_batch.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/units.h"

namespace sluice::apps {

AttentionBatch::AttentionBatch(const AttentionWork& work) : work_(work) {
  const std::int64_t pages_each = kv_pages(work.positions);
  const auto bytes = static_cast<std::int64_t>(work.pages.size());
  num_sequences_ = std::min(bytes / (pages_each * work.layout.page_stride()), work.max_sequences);
  SLUICE_CHECK(num_sequences_ > 0, Code::kInvalidArgument,
               fmt::format("one sequence needs {}, the working set is {}",
                           format_bytes(pages_each * work.layout.page_stride()), format_bytes(bytes)),
               "raise --working-set or lower --positions");
  for (std::int64_t p = 0; p < num_sequences_ * pages_each; ++p) {
    page_table_.push_back(work.pages.data() + p * work.layout.page_stride());
  }
  for (std::int64_t s = 0; s < num_sequences_; ++s) {
    segments_.push_back(
        {.pages = page_table_.data() + s * pages_each,
         .first_kv = work.positions - work.rows_each,
         .first_row = static_cast<std::int32_t>(s * work.rows_each),
         .num_rows = static_cast<std::int32_t>(work.rows_each),
         .kind = work.rows_each == 1 ? kernels::SegmentKind::kDecode : kernels::SegmentKind::kPrompt});
  }
}

void AttentionBatch::run(const std::byte* q, std::byte* out, DType dtype, kernels::Stream& stream) const {
  attend(segments_, q, out, dtype, stream);
}

void AttentionBatch::run_steps(std::int64_t sequences, const std::byte* q, const std::byte* kv,
                               std::byte* out, DType dtype, kernels::Stream& stream) const {
  const std::span<const kernels::PagedSegment> all = segments_;
  const std::int64_t width = work_.layout.num_kv_heads * work_.layout.head_dim;
  const ConstMatrixView rows{kv, dtype, num_rows(), width, width};
  const auto step = static_cast<std::size_t>(sequences);
  for (std::size_t first = 0; first < all.size(); first += step) {
    const auto segments = all.subspan(first, std::min(step, all.size() - first));
    kernels::kv_write({.k = rows, .v = rows, .segments = segments, .layout = work_.layout}, stream);
    attend(segments, q, out, dtype, stream);
  }
}

void AttentionBatch::attend(std::span<const kernels::PagedSegment> segments, const std::byte* q,
                            std::byte* out, DType dtype, kernels::Stream& stream) const {
  const std::int64_t width = work_.num_heads * work_.layout.head_dim;
  kernels::attention({.q = {q, dtype, num_rows(), width, width},
                      .segments = segments,
                      .layout = work_.layout,
                      .num_heads = work_.num_heads,
                      .scale = 1.0F / std::sqrt(static_cast<float>(work_.layout.head_dim)),
                      .out = {out, dtype, num_rows(), width, width}},
                     stream);
}

double AttentionBatch::kv_bytes() const {
  return static_cast<double>(num_sequences_ * work_.positions * work_.layout.token_bytes());
}

double AttentionBatch::causal_flops() const {
  const auto rows = static_cast<double>(work_.positions);
  return static_cast<double>(num_sequences_) * rows * (rows + 1) / 2 *
         static_cast<double>(work_.num_heads * work_.layout.head_dim) * 4;
}

}  // namespace sluice::apps
