#include <algorithm>
#include <cmath>

#include "kernels/ops/reference.h"

namespace sluice::kernels {
namespace {

/// Reads K and V of one KV head of a sequence by KV index.
class Pages {
 public:
  Pages(const PagedSegment& segment, const KvLayout& layout, std::int64_t head)
      : segment_(segment), layout_(layout), head_(head) {}
  double k(std::int64_t kv, std::int64_t i) const { return at(kv, layout_.k_offset(head_), i); }
  double v(std::int64_t kv, std::int64_t i) const { return at(kv, layout_.v_offset(head_), i); }

 private:
  double at(std::int64_t kv, std::int64_t offset, std::int64_t i) const {
    const std::byte* row =
        segment_.pages[kv / kKvPageTokens] + offset + kv % kKvPageTokens * layout_.row_bytes();
    return element(row, layout_.format == KvFormat::kF16 ? DType::kF16 : DType::kF32, i);
  }
  const PagedSegment& segment_;
  const KvLayout& layout_;
  std::int64_t head_;
};

void attend_row(const AttentionArgs& args, const PagedSegment& segment, std::int64_t r, std::int64_t head,
                Expected* out) {
  const std::int64_t dim = args.layout.head_dim;
  const Pages pages(segment, args.layout, head / (args.num_heads / args.layout.num_kv_heads));
  const std::int64_t visible = std::max<std::int64_t>(segment.first_kv + r + 1, segment.full_prefix);
  const std::int64_t q = (segment.first_row + r) * args.q.stride + head * dim;

  std::vector<double> p(static_cast<std::size_t>(visible));
  double largest = -INFINITY;
  double smallest = INFINITY;
  double largest_l1 = 0;
  for (std::int64_t t = 0; t < visible; ++t) {
    double dot = 0;
    double l1 = 0;
    for (std::int64_t i = 0; i < dim; ++i) {
      const double product = element(args.q.data, args.q.dtype, q + i) * pages.k(t, i);
      dot += product;
      l1 += std::abs(product);
    }
    const double score = dot * static_cast<double>(args.scale);
    p[static_cast<std::size_t>(t)] = score;
    largest = std::max(largest, score);
    smallest = std::min(smallest, score);
    largest_l1 = std::max(largest_l1, l1 * std::abs(static_cast<double>(args.scale)));
  }
  double sum = 0;
  for (double& score : p) sum += score = std::exp(score - largest);

  // A probability's relative error: that of its score (2 roundings per product of the dot, the scale), which
  // exp turns from absolute into relative; the rounding of s - m, up to u |s - m|; exp's own, up to 4 u.
  // Maximum and merge factors shift all probabilities of a page alike: again u |m - m'| + 4 u. The sums over
  // a page's tokens and over the pages: one rounding a token, three a page. Numerator and denominator: twice.
  const double score_error = (2 * static_cast<double>(dim) + 2) * kFp32Rounding * largest_l1;
  const double exp_error = 2 * (largest - smallest + 4) * kFp32Rounding;
  const double sum_error = static_cast<double>(kKvPageTokens + 3 * kv_pages(visible) + 6) * kFp32Rounding;
  const double relative = 2 * (2 * score_error + exp_error + sum_error);
  for (std::int64_t i = 0; i < dim; ++i) {
    double value = 0;
    double value_abs = 0;
    for (std::int64_t t = 0; t < visible; ++t) {
      const double term = p[static_cast<std::size_t>(t)] * pages.v(t, i);
      value += term;
      value_abs += std::abs(term);
    }
    out[i] = {value / sum, relative * value_abs / sum};
  }
}

}  // namespace

std::vector<Expected> attention_ref(const AttentionArgs& args) {
  std::vector<Expected> out(static_cast<std::size_t>(args.out.rows * args.out.cols));
  for (const PagedSegment& segment : args.segments) {
    for (std::int64_t r = 0; r < segment.num_rows; ++r) {
      for (std::int64_t head = 0; head < args.num_heads; ++head) {
        attend_row(args, segment, r, head,
                   out.data() + (segment.first_row + r) * args.out.cols + head * args.layout.head_dim);
      }
    }
  }
  return out;
}

}  // namespace sluice::kernels
