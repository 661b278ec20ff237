#include "kernels/ops/attention.h"

#include <gmock/gmock.h>

#include "core/build_config.h"
#include "core/error.h"
#include "tests/kernels/attention_cases.h"
#include "tests/kernels/kv_pages.h"

namespace sluice::kernels {
namespace {

using namespace testing;

class Attention : public ::testing::TestWithParam<AttentionCase> {
 protected:
  Attention()
      : random(5),
        batch({c.num_kv_heads, c.head_dim, c.format}, c.num_heads, c.segments, random, c.padding) {}
  const AttentionCase c = GetParam();
  Random random;
  AttentionBatch batch;
};

TEST_P(Attention, IsCloseToTheReferenceOnEveryTarget) {
  GuardedMatrix shape = batch.output();
  const std::vector<Expected> expected = attention_ref(batch.args(shape));
  for_each_target([&] {
    ThreadPool pool(2);
    Stream stream(pool);
    GuardedMatrix out = batch.output(c.padding);
    attention(batch.args(out), stream);
    out.expect_near(expected);
    out.expect_guards_intact();
    batch.pages.expect_guards_intact();
  });
}

/// Attention of every row on its own, as decode would do it.
void attend_rows_alone(const AttentionBatch& batch, GuardedMatrix& out, Stream& stream) {
  AttentionArgs args = batch.args(out);
  for (const PagedSegment& whole : batch.segments) {
    for (std::int32_t r = 0; r < whole.num_rows; ++r) {
      PagedSegment row = whole;
      row.first_kv += r;
      row.first_row += r;
      row.num_rows = 1;
      args.segments = {&row, 1};
      attention(args, stream);
    }
  }
}

TEST_P(Attention, GivesTheSameBitsForEachRowAloneAndForAnyThreads) {
  for_each_target([&] {
    ThreadPool one(1);
    Stream serial(one);
    GuardedMatrix all = batch.output();
    attention(batch.args(all), serial);
    GuardedMatrix alone = batch.output();
    attend_rows_alone(batch, alone, serial);
    alone.expect_same_bits(all);
    for (const int threads : {2, 3, 5}) {
      ThreadPool pool(threads);
      Stream stream(pool);
      GuardedMatrix out = batch.output();
      attention(batch.args(out), stream);
      out.expect_same_bits(all);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Cpu, Attention, ::testing::ValuesIn(attention_cases()), name_of_case);

TEST(AttentionShapes, EveryHeadDimIsCloseToTheReference) {
  Random random(9);
  for (std::int64_t head_dim = 8; head_dim <= 256; head_dim += 8) {
    SCOPED_TRACE(head_dim);
    const AttentionBatch batch({2, head_dim, head_dim % 16 == 0 ? KvFormat::kF16 : KvFormat::kF32}, 2,
                               {segment(66, 1), segment(60, 9)}, random);
    GuardedMatrix shape = batch.output();
    const std::vector<Expected> expected = attention_ref(batch.args(shape));
    for_each_target([&] {
      ThreadPool pool(1);
      Stream stream(pool);
      GuardedMatrix out = batch.output();
      attention(batch.args(out), stream);
      out.expect_near(expected);
      GuardedMatrix alone = batch.output();
      attend_rows_alone(batch, alone, stream);
      alone.expect_same_bits(out);
    });
  }
}

TEST(AttentionGroups, AnyCutOfRandomRaggedSegmentsGivesTheSameBits) {
  const std::uint64_t seed = 20240608;
  SCOPED_TRACE(seed);
  Random random(seed);
  ThreadPool pool(2);
  Stream stream(pool);
  for (int round = 0; round < 12; ++round) {
    const std::int64_t kv_heads = between(random, 1, 3);
    const std::int64_t group = between(random, 1, 5);
    const KvLayout layout{kv_heads, 8 * between(random, 1, 20),
                          round % 2 == 0 ? KvFormat::kF16 : KvFormat::kF32};
    std::vector<PagedSegment> segments;
    for (std::int64_t s = between(random, 1, 5); s > 0; --s) {
      const auto rows = static_cast<std::int32_t>(between(random, 1, 150));
      const auto first = between(random, 0, 150);
      segments.push_back(
          segment(first, rows, static_cast<std::int32_t>(between(random, 0, 1) * between(random, 0, 200))));
    }
    const AttentionBatch batch(layout, kv_heads * group, segments, random);
    GuardedMatrix all = batch.output();
    attention(batch.args(all), stream);

    // The same rows, cut into pieces at random places, in one call and in the order of a shuffle.
    std::vector<PagedSegment> pieces;
    for (const PagedSegment& whole : batch.segments) {
      for (std::int32_t first = 0; first < whole.num_rows;) {
        PagedSegment piece = whole;
        piece.num_rows = std::min(whole.num_rows - first, static_cast<std::int32_t>(between(random, 1, 90)));
        piece.first_row += first;
        piece.first_kv += first;
        first += piece.num_rows;
        pieces.push_back(piece);
      }
    }
    std::shuffle(pieces.begin(), pieces.end(), random);
    GuardedMatrix cut = batch.output();
    AttentionArgs args = batch.args(cut);
    args.segments = pieces;
    attention(args, stream);
    cut.expect_same_bits(all);
  }
}

TEST(AttentionExactness, AnInfiniteValueOfALaterTokenDoesNotReachEarlierRows) {
  // Row 0 of a tile must not see 0 * infinity of the token that only row 1 sees.
  Random random(2);
  AttentionBatch batch({1, 64, KvFormat::kF16}, 1, {segment(10, 8)}, random);
  const PagedSegment& s = batch.segments[0];
  GuardedMatrix k(1, 64);
  GuardedMatrix v(1, 64);
  for (std::int64_t i = 0; i < 64; ++i) {
    k.at(0, i) = 0;
    v.at(0, i) = 1e30F;  // becomes infinity
  }
  PagedSegment last = s;
  last.first_kv = 17;
  last.first_row = 0;
  last.num_rows = 1;
  ThreadPool pool(1);
  Stream stream(pool);
  kv_write({.k = std::as_const(k).view(),
            .v = std::as_const(v).view(),
            .segments = {&last, 1},
            .layout = batch.pages.layout()},
           stream);
  for_each_target([&] {
    GuardedMatrix out = batch.output();
    attention(batch.args(out), stream);
    for (std::int64_t r = 0; r < 7; ++r) {
      for (std::int64_t i = 0; i < 64; ++i) ASSERT_TRUE(std::isfinite(out.at(r, i))) << r;
    }
    EXPECT_TRUE(std::isinf(out.at(7, 0)));
  });
}

// Short segments are shared out by heads, of which the last share is smaller.
TEST(KvWrite, WritesEveryHeadOfShortSegments) {
  Random random(6);
  const KvLayout layout{19, 24, KvFormat::kF32};
  constexpr std::int64_t kWidth = 19 * 24;
  const std::vector<PagedSegment> wanted = {segment(63, 3), segment(0, 1),  segment(130, 16),
                                            segment(5, 0),  segment(64, 1), segment(2, 17)};
  for_each_target([&] {
    KvPages pages(layout);
    std::vector<PagedSegment> segments = wanted;
    std::int32_t rows = 0;
    for (PagedSegment& s : segments) {
      s.pages = pages.add_sequence(s.first_kv + s.num_rows + 1);
      s.first_row = rows;
      rows += s.num_rows;
    }
    const GuardedMatrix k = GuardedMatrix::random(rows, kWidth, 2, random);
    const GuardedMatrix v = GuardedMatrix::random(rows, kWidth, 0, random);
    ThreadPool pool(3);
    Stream stream(pool);
    kv_write({.k = k.view(), .v = v.view(), .segments = segments, .layout = layout}, stream);
    pages.expect_guards_intact();
    for (const PagedSegment& s : segments) {
      for (std::int64_t kv = 0; kv <= s.first_kv + s.num_rows; ++kv) {
        const std::int64_t row = kv - s.first_kv;
        const bool written = row >= 0 && row < s.num_rows;
        for (std::int64_t c = 0; c < kWidth; ++c) {
          const std::byte* page = s.pages[kv / kKvPageTokens];
          const std::int64_t at = kv % kKvPageTokens * 24 + c % 24;
          const double stored_k = element(page + layout.k_offset(c / 24), DType::kF32, at);
          const double stored_v = element(page + layout.v_offset(c / 24), DType::kF32, at);
          if (!written) {
            ASSERT_TRUE(std::isnan(stored_k) && std::isnan(stored_v)) << kv << " " << c;
            continue;
          }
          ASSERT_EQ(stored_k, k.at(s.first_row + row, c)) << kv << " " << c;
          ASSERT_EQ(stored_v, v.at(s.first_row + row, c)) << kv << " " << c;
        }
      }
    }
  });
}

TEST(KvWrite, RoundsLikeCoreAndTouchesNothingElse) {
  Random random(4);
  for (const KvFormat format : {KvFormat::kF16, KvFormat::kF32}) {
    const KvLayout layout{3, 40, format};
    for_each_target([&] {
      KvPages pages(layout);
      PagedSegment s = segment(60, 70);
      s.pages = pages.add_sequence(130);
      s.first_row = 2;
      GuardedMatrix k = GuardedMatrix::random(75, 120, 1, random);
      GuardedMatrix v = GuardedMatrix::random(75, 120, 0, random);
      k.at(2, 0) = 1e-6F;  // subnormal
      k.at(2, 1) = 70000;  // too large
      k.at(2, 2) = 2049;   // a tie, to even
      k.at(2, 3) = 2051;
      k.at(2, 4) = -1e-9F;  // to -0
      ThreadPool pool(2);
      Stream stream(pool);
      kv_write(
          {.k = std::as_const(k).view(), .v = std::as_const(v).view(), .segments = {&s, 1}, .layout = layout},
          stream);
      pages.expect_guards_intact();
      const DType dtype = format == KvFormat::kF16 ? DType::kF16 : DType::kF32;
      for (std::int64_t kv = 0; kv < 130; ++kv) {
        for (std::int64_t head = 0; head < 3; ++head) {
          for (std::int64_t i = 0; i < 40; ++i) {
            const std::byte* page = s.pages[kv / kKvPageTokens];
            const std::int64_t at = kv % kKvPageTokens * 40 + i;
            const double stored_k = element(page + layout.k_offset(head), dtype, at);
            const double stored_v = element(page + layout.v_offset(head), dtype, at);
            if (kv < 60) {
              ASSERT_TRUE(std::isnan(stored_k) && std::isnan(stored_v)) << kv;
              continue;
            }
            const auto rounded = [&](float x) { return format == KvFormat::kF16 ? to_float(to_half(x)) : x; };
            ASSERT_EQ(stored_k, rounded(k.at(kv - 60 + 2, head * 40 + i))) << kv << " " << i;
            ASSERT_EQ(stored_v, rounded(v.at(kv - 60 + 2, head * 40 + i))) << kv << " " << i;
          }
        }
      }
    });
  }
}

TEST(AttentionErrors, RefusesWhatItCannotRunWithTheReason) {
  Random random(1);
  const AttentionBatch batch({2, 16, KvFormat::kF16}, 4, {segment(3, 2)}, random);
  GuardedMatrix out = batch.output();
  const AttentionArgs good = batch.args(out);
  EXPECT_EQ(why_unsupported(good, DeviceKind::kCpu), "");
  EXPECT_THAT(why_unsupported(good, DeviceKind::kCuda),
              ::testing::HasSubstr(kWithCuda ? "q is f32, must be f16 or bf16" : "device"));
  AttentionArgs bad = good;
  bad.q.dtype = DType::kI8;
  EXPECT_EQ(why_unsupported(bad, DeviceKind::kCpu), "q is i8, must be f32");
  bad = good;
  bad.layout.head_dim = 12;
  EXPECT_EQ(why_unsupported(bad, DeviceKind::kCpu), "head_dim 12 is not a multiple of 8 up to 256");
  bad.layout.head_dim = 264;
  EXPECT_THAT(why_unsupported(bad, DeviceKind::kCpu), ::testing::HasSubstr("head_dim 264"));
  bad = good;
  bad.num_heads = 5;
  EXPECT_EQ(why_unsupported(bad, DeviceKind::kCpu), "5 query heads do not divide over 2 KV heads");
  ThreadPool pool(1);
  Stream stream(pool);
  EXPECT_THROW(attention(bad, stream), Error);

  std::vector<PagedSegment> beyond = batch.segments;
  beyond[0].num_rows = 3;
  beyond[0].kind = SegmentKind::kPrompt;
  bad = good;
  bad.segments = beyond;
  EXPECT_THROW(attention(bad, stream), Error);
}

TEST(AttentionErrors, RefusesEachOperandOutsideTheArena) {
  Random random(1);
  const AttentionBatch batch({1, 16, KvFormat::kF16}, 1, {segment(64, 1)}, random);
  GuardedMatrix result = batch.output();
  const AttentionArgs outside = batch.args(result);
  OperandArena arena;
  AttentionArgs inside = outside;
  inside.q = arena.put(outside.q);
  inside.out = arena.put(outside.out);
  std::vector<const std::byte*> table;
  for (int p = 0; p < 2; ++p)
    table.push_back(arena.put(batch.segments[0].pages[p], outside.layout.page_bytes()));
  std::vector<PagedSegment> segments = batch.segments;
  segments[0].pages = table.data();
  inside.segments = segments;

  ThreadPool pool(1);
  Stream stream(pool);
  stream.restrict_operands(arena.bytes());
  EXPECT_NO_THROW(attention(inside, stream));
  const KvWriteArgs write{.k = inside.q, .v = inside.q, .segments = segments, .layout = inside.layout};
  EXPECT_NO_THROW(kv_write(write, stream));
  AttentionArgs args = inside;
  args.q = outside.q;
  EXPECT_THROW(attention(args, stream), Error);
  args = inside;
  args.out = outside.out;
  EXPECT_THROW(attention(args, stream), Error);
  KvWriteArgs bad_write = write;
  bad_write.v = outside.q;
  EXPECT_THROW(kv_write(bad_write, stream), Error);
  table[1] = batch.segments[0].pages[1];
  EXPECT_THROW(attention(inside, stream), Error);
  EXPECT_THROW(kv_write(write, stream), Error);
  // kv_write uses only the pages that it writes.
  table[1] = table[0];
  table[0] = nullptr;
  EXPECT_NO_THROW(kv_write(write, stream));
}

}  // namespace
}  // namespace sluice::kernels
