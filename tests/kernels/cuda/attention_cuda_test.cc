#include <fmt/core.h>
#include <gmock/gmock.h>

#include "tests/kernels/attention_cases.h"
#include "tests/kernels/cuda/attention_on_device.h"

namespace sluice::kernels {
namespace {

using namespace testing;

constexpr KvFormat kF16 = KvFormat::kF16;
constexpr KvFormat kF32 = KvFormat::kF32;

/// Every element of V: of all its pages' bytes, NaNs of unwritten tokens too.
template <class F>
void for_each_v(const AttentionBatch& batch, const F& f) {
  const KvLayout& layout = batch.pages.layout();
  for (const PagedSegment& s : batch.segments) {
    const std::int64_t tokens = std::max<std::int64_t>(s.first_kv + s.num_rows, s.full_prefix);
    for (std::int64_t p = 0; p < kv_pages(tokens); ++p) {
      auto* v = const_cast<std::byte*>(s.pages[p]) + layout.v_offset(0);
      for (std::int64_t i = 0; i < layout.num_kv_heads * kKvPageTokens * layout.head_dim; ++i) {
        f(v + i * layout.element_bytes());
      }
    }
  }
}

/// What a CUDA device may differ by from the exact result, beyond what fp32 arithmetic explains. With p <= 1
/// the probabilities relative to the largest, L = sum p |v| / sum p, n tokens and V = max |v|:
///   fp16 pages  P is rounded to fp16 before P V: 2^-11 of each term, or 2^-25 where p is subnormal; so
///               2^-11 L + n 2^-25 V, as sum p >= 1. The sum of P itself stays fp32.
///   both        The tensor cores cut instead of rounding (2 u an addition, u = 2^-24), 8 products at a time,
///               and sum all tokens of a chunk in one chain: 2 u (n / 8) L; plain fp32 sums them one by one:
///               n u L. For scores the reference's bound counts 2 d roundings where the cores make d / 8: it
///               holds. exp2 of scores times log2(e) rounds an exponent s to u |s|, which is one more
///               rounding of the score, and ex2.approx is within 2^-22: the reference's fp32 bounds, twice.
///   output      half a unit in the last place: 2^-11 of the value in fp16 (2^-25 if subnormal), 2^-8 in
///   bf16.
struct Reference {
  Reference(AttentionBatch& batch, GuardedMatrix& shape) : exact(attention_ref(batch.args(shape))) {
    const KvLayout& layout = batch.pages.layout();
    const DType dtype = layout.format == kF16 ? DType::kF16 : DType::kF32;
    for (const PagedSegment& s : batch.segments) {
      longest = std::max(longest, std::max<std::int64_t>(s.first_kv + s.num_rows, s.full_prefix));
    }
    // V becomes |V| in the host's pages: nobody needs them after this.
    for_each_v(batch, [&](std::byte* v) {
      std::byte& top = v[layout.element_bytes() - 1];
      top &= std::byte{0x7F};
      const double value = element(v, dtype, 0);
      if (std::isfinite(value)) largest_v = std::max(largest_v, value);
    });
    absolute = attention_ref(batch.args(shape));
    fp16_pages = layout.format == kF16;
  }

  double tolerance(std::size_t i, DType activation) const {
    const double l1 = absolute[i].value;
    const auto n = static_cast<double>(longest);
    double error = 2 * exact[i].tolerance + n * kFp32Rounding * l1;
    if (fp16_pages) error += 0x1p-11 * l1 + n * 0x1p-25 * largest_v;
    const double output = activation == DType::kF16 ? 0x1p-11 : 0x1p-8;
    return error + output * (std::abs(exact[i].value) + error) + 0x1p-25;
  }

  void expect_near(const DeviceMatrix& out) const {
    for (std::int64_t r = 0; r < out.rows(); ++r) {
      for (std::int64_t c = 0; c < out.cols(); ++c) {
        const auto i = static_cast<std::size_t>(r * out.cols() + c);
        ASSERT_LE(std::abs(out.at(r, c) - exact[i].value), tolerance(i, out.dtype()))
            << "row " << r << " column " << c << ": " << out.at(r, c) << " should be " << exact[i].value;
      }
    }
  }

  std::vector<Expected> exact, absolute;
  std::int64_t longest = 0;
  double largest_v = 0;
  bool fp16_pages = false;
};

class AttentionCuda : public CudaTest {
 protected:
  /// A batch on the device. `batch.q` is rounded to the activation type.
  struct Loaded {
    Loaded(AttentionCuda& test, AttentionBatch& batch, DType dtype, std::int64_t padding)
        : num_heads(batch.num_heads),
          layout(batch.pages.layout()),
          scale(1.0F / std::sqrt(static_cast<float>(layout.head_dim))),
          pages(*test.cuda, layout, batch.segments),
          q((round_to(dtype, batch.q), DeviceMatrix(*test.cuda, dtype, batch.q, padding))) {}
    AttentionArgs args(DeviceMatrix& out) const {
      return {.q = q.const_view(),
              .segments = pages.segments,
              .layout = layout,
              .num_heads = num_heads,
              .scale = scale,
              .out = out.view()};
    }
    std::int64_t num_heads;
    KvLayout layout;
    float scale;
    DevicePages pages;
    DeviceMatrix q;
  };

  DeviceMatrix output(const AttentionBatch& batch, DType dtype, std::int64_t padding = 0) {
    return {*cuda, dtype, batch.q.rows(), batch.q.cols(), padding};
  }

  /// Runs the batch and compares it with the reference; uses up the batch's pages.
  void check(AttentionBatch& batch, DType dtype, std::int64_t padding = 0) {
    Loaded loaded(*this, batch, dtype, padding);
    DeviceMatrix out = output(batch, dtype, padding);
    attention(loaded.args(out), stream());
    loaded.pages.scribble_tables();
    out.fetch();
    loaded.pages.expect_equal(batch.segments);
    GuardedMatrix shape = batch.output();
    Reference(batch, shape).expect_near(out);
  }

  Random random{6};
};

class AttentionCudaCases : public AttentionCuda, public ::testing::WithParamInterface<AttentionCase> {};

TEST_P(AttentionCudaCases, IsCloseToTheReferenceForEveryType) {
  const AttentionCase c = GetParam();
  for (const KvFormat format : {kF16, kF32}) {
    for (const DType dtype : {DType::kF16, DType::kBF16}) {
      SCOPED_TRACE(fmt::format("{} KV, {} activations", kv_format_name(format), dtype_name(dtype)));
      AttentionBatch batch({c.num_kv_heads, c.head_dim, format}, c.num_heads, c.segments, random);
      check(batch, dtype, c.padding);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cuda, AttentionCudaCases, ::testing::ValuesIn(attention_cases()), name_of_case);

TEST_F(AttentionCuda, EveryHeadDimIsCloseToTheReference) {
  for (std::int64_t head_dim = 8; head_dim <= 256; head_dim += 8) {
    for (const KvFormat format : {kF16, kF32}) {
      SCOPED_TRACE(fmt::format("head_dim {}, {}", head_dim, kv_format_name(format)));
      AttentionBatch batch({2, head_dim, format}, 2, {segment(66, 1), segment(60, 9), segment(3, 150)},
                           random);
      check(batch, head_dim % 3 == 0 ? DType::kBF16 : DType::kF16);
    }
  }
}

TEST_F(AttentionCuda, EveryGroupSizeIsCloseToTheReference) {
  for (const std::int64_t group : {1, 2, 3, 4, 7, 8, 9, 16, 17, 40}) {
    SCOPED_TRACE(group);
    AttentionBatch batch({2, 64, kF16}, 2 * group, {segment(130, 1), segment(600, 1), segment(1, 20)},
                         random);
    check(batch, DType::kF16);
  }
}

TEST_F(AttentionCuda, DecodeOfManySequencesIsCloseToTheReference) {
  std::vector<PagedSegment> segments;
  for (int s = 0; s < 64; ++s) segments.push_back(segment(between(random, 0, 2099), 1));
  AttentionBatch batch({2, 64, kF16}, 8, segments, random);
  check(batch, DType::kF16);
}

TEST_F(AttentionCuda, DecodeIsCloseToTheReferenceAroundChunkEdges) {
  std::vector<PagedSegment> segments;
  for (const std::int64_t tokens :
       {511, 512, 513, 575, 577, 767, 768, 769, 1023, 1025, 1280, 1281, 1536, 5000}) {
    segments.push_back(segment(tokens - 1, 1));
  }
  AttentionBatch batch({1, 128, kF16}, 4, segments, random);
  check(batch, DType::kBF16);
}

TEST_F(AttentionCuda, ALongPromptAfterHistoryIsCloseToTheReference) {
  AttentionBatch batch({1, 128, kF16}, 2, {segment(333, 1500)}, random);
  check(batch, DType::kF16);
}

TEST_F(AttentionCuda, AMixedBatchIsCloseToTheReference) {
  std::vector<PagedSegment> segments;
  for (int s = 0; s < 30; ++s) {
    const auto rows = static_cast<std::int32_t>(s % 3 == 0 ? between(random, 0, 300) : 1);
    segments.push_back(segment(between(random, 0, 900), rows,
                               static_cast<std::int32_t>(between(random, 0, 1) * between(random, 0, 1000))));
  }
  AttentionBatch batch({2, 80, kF16}, 4, segments, random, 8);
  check(batch, DType::kF16, 8);
}

TEST_F(AttentionCuda, ASequenceDecodesToTheSameBitsAloneAndAmongOthers) {
  std::vector<PagedSegment> segments;
  for (int s = 0; s < 40; ++s) segments.push_back(segment(between(random, 0, 2500), 1));
  AttentionBatch batch({2, 96, kF16}, 4, segments, random);
  Loaded loaded(*this, batch, DType::kF16, 0);
  DeviceMatrix all = output(batch, DType::kF16);
  attention(loaded.args(all), stream());
  all.fetch();
  DeviceMatrix alone = output(batch, DType::kF16);
  for (const PagedSegment& s : loaded.pages.segments) {
    AttentionArgs args = loaded.args(alone);
    args.segments = {&s, 1};
    attention(args, stream());
  }
  alone.fetch();
  alone.expect_same_bits(all);
}

TEST_F(AttentionCuda, APromptGivesTheSameBitsInAnyChunks) {
  AttentionBatch batch({1, 128, kF16}, 2, {segment(20, 700, 90)}, random);
  Loaded loaded(*this, batch, DType::kBF16, 0);
  DeviceMatrix whole = output(batch, DType::kBF16);
  attention(loaded.args(whole), stream());
  whole.fetch();
  std::vector<PagedSegment> pieces;
  for (std::int32_t first = 0; first < 700;) {
    PagedSegment piece = loaded.pages.segments[0];
    // Every other piece has one row, and so has the last.
    const std::int64_t most = pieces.size() % 2 == 0 ? 1 : 200;
    piece.num_rows = static_cast<std::int32_t>(between(random, 1, most));
    if (first + piece.num_rows >= 700) piece.num_rows = first == 699 ? 1 : 699 - first;
    piece.first_row += first;
    piece.first_kv += first;
    first += piece.num_rows;
    pieces.push_back(piece);
  }
  std::shuffle(pieces.begin(), pieces.end(), random);
  DeviceMatrix cut = output(batch, DType::kBF16);
  AttentionArgs args = loaded.args(cut);
  args.segments = pieces;
  attention(args, stream());
  cut.fetch();
  cut.expect_same_bits(whole);
}

TEST_F(AttentionCuda, MoreSegmentsThanOneLaunchHoldsAreAllDone) {
  // 1100 sequences of one chunk, then 3 of 400 chunks, of which the tables hold two at a time.
  std::vector<PagedSegment> segments(1100, segment(0, 1));
  segments.resize(1103, segment(400 * 512 - 1, 1));
  segments.resize(2200, segment(1, 2));
  AttentionBatch batch({1, 8, kF16}, 1, segments, random);
  check(batch, DType::kF16);
}

TEST_F(AttentionCuda, KvWriteRoundsLikeCoreAndTouchesNothingElse) {
  for (const KvFormat format : {kF16, kF32}) {
    for (const DType dtype : {DType::kF16, DType::kBF16}) {
      for (const std::int64_t padding : {0, 8, 3}) {
        SCOPED_TRACE(
            fmt::format("{} KV, {}, padding {}", kv_format_name(format), dtype_name(dtype), padding));
        const KvLayout layout{3, 40, format};
        std::vector<PagedSegment> segments = {segment(60, 70), segment(63, 1), segment(0, 0), segment(64, 1),
                                              segment(0, 130)};
        KvPages pages(layout);
        std::int32_t rows = 2;
        for (PagedSegment& s : segments) {
          s.pages = pages.add_sequence(s.first_kv + s.num_rows);
          s.first_row = rows;
          rows += s.num_rows;
        }
        GuardedMatrix k(rows, 120), v(rows, 120);
        for (GuardedMatrix* m : {&k, &v}) {
          for (std::int64_t r = 0; r < rows; ++r) {
            // From what underflows in fp16 to what overflows.
            for (std::int64_t c = 0; c < 120; ++c) {
              m->at(r, c) = std::ldexp(normal(random), static_cast<int>(between(random, -28, 20)));
            }
          }
          round_to(dtype, *m);
        }
        DevicePages on_device(*cuda, layout, segments);
        const DeviceMatrix device_k(*cuda, dtype, k, padding);
        const DeviceMatrix device_v(*cuda, dtype, v, 2 * padding);
        kv_write({.k = device_k.const_view(),
                  .v = device_v.const_view(),
                  .segments = on_device.segments,
                  .layout = layout},
                 stream());
        on_device.scribble_tables();
        ThreadPool pool(1);
        Stream cpu(pool);
        kv_write({.k = std::as_const(k).view(),
                  .v = std::as_const(v).view(),
                  .segments = segments,
                  .layout = layout},
                 cpu);
        on_device.expect_equal(segments);
      }
    }
  }
}

}  // namespace
}  // namespace sluice::kernels
