#include "kernels/ops/attention.h"

#include <algorithm>

#include "core/build_config.h"
#include "core/error.h"
#include "kernels/ops/cpu_kernels.h"
#include "kernels/ops/cuda_kernels.h"
#include "kernels/ops/operands.h"

namespace sluice::kernels {
namespace {

std::string why_not_layout(const KvLayout& layout) {
  if (layout.num_kv_heads < 1) return fmt::format("{} KV heads", layout.num_kv_heads);
  if (layout.head_dim < 8 || layout.head_dim > 256 || layout.head_dim % 8 != 0) {
    return fmt::format("head_dim {} is not a multiple of 8 up to 256", layout.head_dim);
  }
  if (layout.format != KvFormat::kF32 && layout.format != KvFormat::kF16) {
    return fmt::format("KV format {}", kv_format_name(layout.format));
  }
  return {};
}

std::string why_not_same(const char* a_name, const ConstMatrixView& a, const char* b_name,
                         const ConstMatrixView& b) {
  if (a.dtype == b.dtype) return {};
  return fmt::format("{} is {}, but {} is {}", a_name, dtype_name(a.dtype), b_name, dtype_name(b.dtype));
}

/// Checks the rows of a segment and its pages [first_page, end_page).
void check_segment(const Stream& stream, const PagedSegment& segment, std::int64_t num_tokens,
                   const KvLayout& layout, std::int64_t first_page, std::int64_t end_page) {
  SLUICE_ASSERT(segment.first_kv >= 0 && segment.first_row >= 0);
  SLUICE_ASSERT(segment.kind != SegmentKind::kDecode || segment.num_rows == 1);
  SLUICE_CHECK(segment.first_row + segment.num_rows <= num_tokens, Code::kInternal,
               fmt::format("a segment has rows {} to {} of {}", segment.first_row,
                           segment.first_row + segment.num_rows, num_tokens),
               "please report this with the command line");
  for (std::int64_t page = first_page; page < end_page; ++page) {
    check_operand(stream, segment.pages[page], layout.page_bytes());
  }
}

}  // namespace

std::string why_unsupported(const AttentionArgs& args, DeviceKind kind) {
  return first_reason(
      why_not_shared_activation("q", args.q.dtype, kind),
      why_not_shared_activation("out", args.out.dtype, kind),
      why_not_same("q", args.q, "out", as_const(args.out)), why_not_layout(args.layout),
      args.num_heads < 1 || args.layout.num_kv_heads < 1 || args.num_heads % args.layout.num_kv_heads != 0
          ? fmt::format("{} query heads do not divide over {} KV heads", args.num_heads,
                        args.layout.num_kv_heads)
          : std::string());
}

void attention(const AttentionArgs& args, Stream& stream) {
  refuse_unless_empty("attention", why_unsupported(args, stream.kind()));
  SLUICE_ASSERT(args.q.cols == args.num_heads * args.layout.head_dim);
  SLUICE_ASSERT(args.out.rows == args.q.rows && args.out.cols == args.q.cols);
  check_operand(stream, args.q);
  check_operand(stream, args.out);
  for (const PagedSegment& segment : args.segments) {
    if (segment.num_rows <= 0) continue;
    const std::int64_t num_visible =
        std::max<std::int64_t>(segment.first_kv + segment.num_rows, segment.full_prefix);
    check_segment(stream, segment, args.q.rows, args.layout, 0, kv_pages(num_visible));
  }
  if constexpr (kWithCuda) {
    if (stream.kind() == DeviceKind::kCuda) return detail::attention_cuda(args, stream);
  }
  detail::attention_cpu(args, stream.pool());
}

std::string why_unsupported(const KvWriteArgs& args, DeviceKind kind) {
  return first_reason(why_not_shared_activation("k", args.k.dtype, kind),
                      why_not_shared_activation("v", args.v.dtype, kind),
                      why_not_same("k", args.k, "v", args.v), why_not_layout(args.layout));
}

void kv_write(const KvWriteArgs& args, Stream& stream) {
  refuse_unless_empty("kv_write", why_unsupported(args, stream.kind()));
  SLUICE_ASSERT(args.k.cols == args.layout.num_kv_heads * args.layout.head_dim && args.v.cols == args.k.cols);
  SLUICE_ASSERT(args.k.rows == args.v.rows);
  check_operand(stream, args.k);
  check_operand(stream, args.v);
  for (const PagedSegment& segment : args.segments) {
    if (segment.num_rows <= 0) continue;
    check_segment(stream, segment, args.k.rows, args.layout, segment.first_kv / kKvPageTokens,
                  kv_pages(segment.first_kv + segment.num_rows));
  }
  if constexpr (kWithCuda) {
    if (stream.kind() == DeviceKind::kCuda) return detail::kv_write_cuda(args, stream);
  }
  detail::kv_write_cpu(args, stream.pool());
}

}  // namespace sluice::kernels
