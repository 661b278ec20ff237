#include "kernels/ops/sample.h"

#include <cmath>
#include <limits>

#include <gmock/gmock.h>

#include "core/error.h"
#include "tests/kernels/kernel_support.h"

namespace sluice::kernels {
namespace {

using namespace testing;

constexpr std::int64_t kMaxTop = 5;

struct Batch {
  Batch(std::int64_t num_rows, std::int64_t vocab, std::int64_t padding, Random& random)
      : logits(GuardedMatrix::random(num_rows, vocab, padding, random)),
        rows(static_cast<std::size_t>(num_rows)),
        results(static_cast<std::size_t>(num_rows)),
        top(static_cast<std::size_t>(num_rows * kMaxTop)),
        scratch(static_cast<std::size_t>(sample_scratch_bytes(num_rows, vocab))) {}
  SampleArgs args() {
    return {.logits = std::as_const(logits).view(),
            .valid_vocab = logits.cols(),
            .rows = rows,
            .results = results,
            .top = {top.data(), logits.rows(), kMaxTop, kMaxTop},
            .scratch = scratch};
  }
  double logprob(std::int64_t row, std::int64_t id, std::int64_t valid) const {
    double largest = -INFINITY;
    for (std::int64_t i = 0; i < valid; ++i) largest = std::max<double>(largest, logits.at(row, i));
    double sum = 0;
    for (std::int64_t i = 0; i < valid; ++i)
      sum += std::exp(static_cast<double>(logits.at(row, i)) - largest);
    return logits.at(row, id) - largest - std::log(sum);
  }
  GuardedMatrix logits;
  std::vector<SampleRow> rows;
  std::vector<SampledRow> results;
  std::vector<ScoredToken> top;
  std::vector<std::byte> scratch;
};

// The sum of exponentials: 8 terms in fp32, exp's few ulp and the rounding of x - max (u |d| e^-d < u / 2)
// make at most 16 u of relative error, which the logarithm makes absolute; the result is rounded once.
double tolerance(double logprob) { return 16 * kFp32Rounding + kFp32Rounding * std::abs(logprob); }

TEST(Sample, GivesTokensAndLogprobsOnEveryTarget) {
  Random random(17);
  for (const std::int64_t vocab : {1, 7, 16, 130, 1000, 50272}) {
    SCOPED_TRACE(vocab);
    Batch batch(6, vocab, 3, random);
    for (std::size_t r = 0; r < batch.rows.size(); ++r) {
      batch.rows[r].target_id = static_cast<std::int32_t>(between(random, 0, vocab - 1));
      batch.rows[r].num_top = static_cast<std::int32_t>(
          std::min<std::int64_t>(static_cast<std::int64_t>(r), std::min(vocab, kMaxTop)));
    }
    batch.rows[1].params = {.do_sample = true, .temperature = 0.7F, .top_k = 3};
    batch.rows[1].draw = 0.6F;
    batch.rows[2].choose = false;
    for_each_target([&] {
      ThreadPool pool(2);
      Stream stream(pool);
      sample(batch.args(), stream);
      for (std::int64_t r = 0; r < 6; ++r) {
        const SampleRow& wanted = batch.rows[static_cast<std::size_t>(r)];
        const SampledRow& result = batch.results[static_cast<std::size_t>(r)];
        const auto expect_logprob = [&](float actual, std::int64_t id) {
          const double expected = batch.logprob(r, id, vocab);
          EXPECT_NEAR(actual, expected, tolerance(expected)) << "row " << r << " token " << id;
        };
        expect_logprob(result.target_logprob, wanted.target_id);
        std::vector<ScoredToken> scratch(static_cast<std::size_t>(vocab));
        const std::span<const float> row{&batch.logits.at(r, 0), static_cast<std::size_t>(vocab)};
        if (wanted.choose) {
          EXPECT_EQ(result.token_id, choose_token(row, wanted.params, wanted.draw, scratch));
          expect_logprob(result.token_logprob, result.token_id);
        } else {
          EXPECT_EQ(result.token_id, -1);
        }
        std::vector<ScoredToken> top(static_cast<std::size_t>(wanted.num_top));
        top_tokens(row, top, scratch);
        for (std::size_t i = 0; i < top.size(); ++i) {
          const ScoredToken& actual = batch.top[static_cast<std::size_t>(r * kMaxTop) + i];
          EXPECT_EQ(actual.token_id, top[i].token_id);
          expect_logprob(actual.logit, top[i].token_id);
        }
      }
    });
  }
}

TEST(Sample, LooksAtValidColumnsOnly) {
  Random random(1);
  Batch batch(1, 40, 0, random);
  for (std::int64_t i = 33; i < 40; ++i) batch.logits.at(0, i) = i == 35 ? NAN : 100.0F;
  batch.rows[0].num_top = 5;
  SampleArgs args = batch.args();
  args.valid_vocab = 33;
  ThreadPool pool(1);
  Stream stream(pool);
  sample(args, stream);
  EXPECT_LT(batch.results[0].token_id, 33);
  EXPECT_NEAR(batch.results[0].token_logprob, batch.logprob(0, batch.results[0].token_id, 33), 1e-5);
  for (const ScoredToken& token : batch.top) EXPECT_LT(token.token_id, 33);
}

TEST(Sample, TakesLogitsOfMinusInfinity) {
  Random random(1);
  Batch batch(1, 20, 0, random);
  for (std::int64_t i = 0; i < 20; ++i)
    batch.logits.at(0, i) = i == 4 ? 3.0F : -std::numeric_limits<float>::infinity();
  for_each_target([&] {
    ThreadPool pool(1);
    Stream stream(pool);
    sample(batch.args(), stream);
    EXPECT_EQ(batch.results[0].token_id, 4);
    EXPECT_EQ(batch.results[0].token_logprob, 0.0F);
  });
}

TEST(Sample, GivesTheSameForEachRowAlone) {
  Random random(8);
  Batch batch(20, 333, 0, random);
  for (SampleRow& row : batch.rows) row.params.do_sample = true;
  for (SampleRow& row : batch.rows) row.draw = std::abs(std::remainder(normal(random), 1.0F));
  ThreadPool pool(3);
  Stream stream(pool);
  sample(batch.args(), stream);
  const std::vector<SampledRow> all = batch.results;
  for (std::int64_t r = 0; r < 20; ++r) {
    const auto at = static_cast<std::size_t>(r);
    SampleArgs args = batch.args();
    args.logits = args.logits.slice_rows(r, 1);
    args.rows = args.rows.subspan(at, 1);
    args.results = args.results.subspan(at, 1);
    args.top = args.top.slice_rows(r, 1);
    sample(args, stream);
    EXPECT_EQ(batch.results[at].token_id, all[at].token_id);
    EXPECT_EQ(batch.results[at].token_logprob, all[at].token_logprob);
  }
}

TEST(SampleErrors, NamesTheRowThatHoldsNaN) {
  Random random(1);
  for (const std::int64_t column : {0, 5, 16, 35, 36}) {
    Batch batch(4, 37, 0, random);
    batch.logits.at(2, column) = NAN;
    for_each_target([&] {
      ThreadPool pool(2);
      Stream stream(pool);
      try {
        sample(batch.args(), stream);
        ADD_FAILURE() << "NaN in column " << column << " passed";
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), Code::kInternal);
        EXPECT_THAT(e.what(), ::testing::HasSubstr("NaN among the logits of row 2"));
      }
    });
  }
}

TEST(SampleErrors, RefusesBadTargetsScratchAndPlaces) {
  Random random(1);
  Batch batch(2, 10, 0, random);
  ThreadPool pool(1);
  Stream stream(pool);
  EXPECT_EQ(why_unsupported(batch.args(), DeviceKind::kCpu), "");
  batch.rows[1].target_id = 10;
  EXPECT_THROW(sample(batch.args(), stream), Error);
  batch.rows[1].target_id = -1;
  batch.rows[0].num_top = kMaxTop + 1;
  EXPECT_THROW(sample(batch.args(), stream), Error);
  batch.rows[0].num_top = 0;
  SampleArgs args = batch.args();
  args.scratch = args.scratch.first(args.scratch.size() - 1);
  EXPECT_THROW(sample(args, stream), Error);
  args = batch.args();
  args.logits.dtype = DType::kF16;
  EXPECT_THROW(sample(args, stream), Error);
  args = batch.args();
  args.valid_vocab = 11;
  EXPECT_THROW(sample(args, stream), Error);
  stream.restrict_operands(batch.logits.bytes());
  EXPECT_THROW(sample(batch.args(), stream), Error);
  stream.restrict_operands(batch.scratch);
  EXPECT_THROW(sample(batch.args(), stream), Error);
}

}  // namespace
}  // namespace sluice::kernels
