#include <cmath>
#include <limits>

#include <gmock/gmock.h>

#include "core/error.h"
#include "kernels/ops/sample.h"
#include "tests/kernels/cuda/device_operands.h"

namespace sluice::kernels {
namespace {

using namespace testing;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr std::int64_t kMaxTop = 5;

/// Rows of logits, what is wanted of them, and what the device made of it.
struct Batch {
  Batch(std::int64_t num_rows, std::int64_t vocab, std::int64_t padding)
      : logits(num_rows, vocab, padding),
        valid(vocab),
        rows(static_cast<std::size_t>(num_rows)),
        top(static_cast<std::size_t>(num_rows * kMaxTop)) {}

  void run(CudaDeviceUnderTest& cuda) {
    const DeviceMatrix device_logits(cuda, DType::kF32, logits);
    const DeviceArray<SampleRow> device_rows(cuda, rows);
    const DeviceArray<SampledRow> device_results(cuda, std::vector<SampledRow>(rows.size()));
    const DeviceArray<ScoredToken> device_top(cuda, std::vector<ScoredToken>(top.size(), ScoredToken{-7, 7}));
    const DeviceArray<std::byte> scratch(
        cuda,
        std::vector<std::byte>(static_cast<std::size_t>(sample_scratch_bytes(logits.rows(), logits.cols()))));
    sample({.logits = device_logits.const_view(),
            .valid_vocab = valid,
            .rows = device_rows.get(),
            .results = device_results.get(),
            .top = {device_top.get().data(), logits.rows(), kMaxTop, kMaxTop},
            .scratch = scratch.get()},
           cuda.stream());
    results = device_results.fetch();
    top = device_top.fetch();
  }

  std::span<const float> row(std::int64_t r) const {
    return {reinterpret_cast<const float*>(logits.view().data) + r * logits.view().stride,
            static_cast<std::size_t>(valid)};
  }

  /// Tokens as the CPU device's, log-probs within 1e-5: expf's 2 ulp, the rounding of x - max (u |d| e^-d <
  /// u/2) and up to 4 terms in fp32 make under 8 u of relative error, which the logarithm makes absolute; the
  /// result is rounded once, at most to 128 u.
  void expect_as_on_cpu() const {
    std::vector<ScoredToken> scratch(static_cast<std::size_t>(valid));
    for (std::int64_t r = 0; r < logits.rows(); ++r) {
      SCOPED_TRACE(fmt::format("row {}", r));
      const SampleRow& wanted = rows[static_cast<std::size_t>(r)];
      const SampledRow& result = results[static_cast<std::size_t>(r)];
      const double normalizer = log_sum_exp(row(r));
      const auto expect_logprob = [&](float actual, std::int32_t id) {
        const double expected = row(r)[static_cast<std::size_t>(id)] - normalizer;
        if (std::isinf(expected)) {
          EXPECT_EQ(actual, expected) << "token " << id;
        } else {
          EXPECT_NEAR(actual, expected, 1e-5) << "token " << id;
        }
      };
      if (wanted.choose) {
        const std::int32_t expected = choose_token(row(r), wanted.params, wanted.draw, scratch);
        ASSERT_EQ(result.token_id, expected)
            << "temperature " << wanted.params.temperature << " top_k " << wanted.params.top_k << " top_p "
            << wanted.params.top_p << " draw " << wanted.draw;
        expect_logprob(result.token_logprob, expected);
      } else {
        EXPECT_EQ(result.token_id, -1);
      }
      if (wanted.target_id >= 0) expect_logprob(result.target_logprob, wanted.target_id);
      std::vector<ScoredToken> expected_top(static_cast<std::size_t>(wanted.num_top));
      top_tokens(row(r), expected_top, scratch);
      for (std::size_t i = 0; i < static_cast<std::size_t>(kMaxTop); ++i) {
        const ScoredToken& actual = top[static_cast<std::size_t>(r * kMaxTop) + i];
        const std::int32_t id = i < expected_top.size() ? expected_top[i].token_id : -7;
        ASSERT_EQ(actual.token_id, id) << "place " << i;
        if (id >= 0) expect_logprob(actual.logit, id);
      }
    }
  }

  GuardedMatrix logits;
  std::int64_t valid;
  std::vector<SampleRow> rows;
  std::vector<SampledRow> results;
  std::vector<ScoredToken> top;
};

enum class Shape { kNormal, kFlat, kTied, kPeaked, kMasked, kEqual };

float logit(Shape shape, Random& random) {
  const float x = normal(random);
  switch (shape) {
    case Shape::kNormal:
      return 2 * x;
    case Shape::kFlat:
      return 0.01F * x;
    case Shape::kTied:
      return std::round(2 * x) / 2;
    case Shape::kPeaked:
      return x > 3.2F ? 15 + x : x - 5;
    case Shape::kMasked:
      return x > 0 ? -kInf : x;
    case Shape::kEqual:
      return 0.5F;
  }
  return x;
}

SampleRow random_wish(std::int64_t vocab, Random& random) {
  SampleRow row;
  row.params.do_sample = between(random, 0, 3) > 0;
  constexpr float kTemperatures[] = {0.3F, 0.7F, 1.0F, 2.5F};
  row.params.temperature = kTemperatures[between(random, 0, 3)];
  const std::int64_t ks[] = {0, 0, 1, 40, std::min<std::int64_t>(20000, vocab), vocab - 1, vocab + 5};
  row.params.top_k = static_cast<std::int32_t>(std::max<std::int64_t>(0, ks[between(random, 0, 6)]));
  constexpr float kPs[] = {1.0F, 0.95F, 0.5F, 1e-6F, 0.9999F};
  row.params.top_p = kPs[between(random, 0, 4)];
  row.draw = uniform_draw(3, static_cast<std::uint64_t>(between(random, 0, 1 << 30)), 1);
  row.target_id = static_cast<std::int32_t>(between(random, -1, vocab - 1));
  row.num_top = static_cast<std::int32_t>(between(random, 0, std::min(vocab, kMaxTop)));
  row.choose = between(random, 0, 9) > 0;
  return row;
}

class SampleCuda : public CudaTest {};

TEST_F(SampleCuda, ChoosesWhatTheCpuChooses) {
  Random random(17);
  for (const std::int64_t vocab : {1, 2, 7, 130, 1000, 50272, 131075}) {
    for (const Shape shape :
         {Shape::kNormal, Shape::kFlat, Shape::kTied, Shape::kPeaked, Shape::kMasked, Shape::kEqual}) {
      SCOPED_TRACE(fmt::format("vocabulary {} shape {}", vocab, static_cast<int>(shape)));
      Batch batch(vocab > 1000 ? 24 : 64, vocab, 3);  // rows that do not start at multiples of 16 bytes
      for (std::int64_t r = 0; r < batch.logits.rows(); ++r) {
        for (std::int64_t i = 0; i < vocab; ++i) batch.logits.at(r, i) = logit(shape, random);
        batch.logits.at(r, between(random, 0, vocab - 1)) = 0.0F;  // never all -infinity
        batch.rows[static_cast<std::size_t>(r)] = random_wish(vocab, random);
      }
      batch.run(*cuda);
      batch.expect_as_on_cpu();
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(SampleCuda, TakesTheExtremesAsTheCpuDoes) {
  Batch batch(6, 40, 0);
  Random random(2);
  for (std::int64_t r = 0; r < 6; ++r) {
    for (std::int64_t i = 0; i < 40; ++i) batch.logits.at(r, i) = normal(random) - 5;
    batch.rows[static_cast<std::size_t>(r)].num_top = 5;
  }
  for (std::int64_t i = 0; i < 40; ++i) {
    batch.logits.at(0, i) = i == 4 ? 3.0F : -kInf;
    batch.logits.at(1, i) = std::numeric_limits<float>::lowest();
    batch.logits.at(2, i) = i % 2 == 0 ? -0.0F : 0.0F;
  }
  batch.rows[3].params = {.do_sample = true, .temperature = 1e-6F};
  batch.rows[4].params = {.do_sample = true, .temperature = 1.0F};
  batch.rows[4].draw = 1.0F - 0x1p-24F;
  batch.rows[5].params = {.do_sample = true, .temperature = 1.0F, .top_p = 0.5F};
  batch.run(*cuda);
  batch.expect_as_on_cpu();
  // Several +infinity share the mass; their log-probs are not numbers, as on the CPU.
  Batch infinite(2, 9, 0);
  for (std::int64_t r = 0; r < 2; ++r) {
    for (std::int64_t i = 0; i < 9; ++i) infinite.logits.at(r, i) = i % 3 == 1 ? kInf : 1.0F;
  }
  infinite.rows[1].params = {.do_sample = true};
  infinite.rows[1].draw = 0.5F;
  infinite.run(*cuda);
  EXPECT_EQ(infinite.results[0].token_id, 1);
  EXPECT_EQ(infinite.results[1].token_id, 4);
}

TEST_F(SampleCuda, LooksAtValidColumnsOnly) {
  Random random(1);
  Batch batch(3, 40, 0);
  batch.valid = 33;
  for (std::int64_t r = 0; r < 3; ++r) {
    for (std::int64_t i = 0; i < 40; ++i)
      batch.logits.at(r, i) = i < 33 ? normal(random) : i == 35 ? NAN : 100.0F;
    batch.rows[static_cast<std::size_t>(r)].num_top = 5;
  }
  batch.rows[1].params = {.do_sample = true};
  batch.rows[1].draw = 0.999F;
  batch.run(*cuda);
  batch.expect_as_on_cpu();
}

TEST_F(SampleCuda, MarksRowsOfWhichNoTokenCanBeChosen) {
  Random random(1);
  for (const std::int64_t column : {0, 5, 16, 35, 36}) {
    Batch batch(4, 37, 0);
    for (std::int64_t r = 0; r < 4; ++r) {
      for (std::int64_t i = 0; i < 37; ++i) batch.logits.at(r, i) = r == 3 ? -kInf : normal(random);
    }
    batch.logits.at(2, column) = NAN;
    batch.run(*cuda);
    EXPECT_GE(batch.results[0].token_id, 0);
    EXPECT_GE(batch.results[1].token_id, 0);
    EXPECT_EQ(batch.results[2].token_id, kNanToken);
    EXPECT_EQ(batch.results[3].token_id, kNanToken);
  }
}

TEST_F(SampleCuda, GivesTheSameForEachRowAlone) {
  Random random(8);
  Batch batch(20, 3333, 0);
  for (std::int64_t r = 0; r < 20; ++r) {
    for (std::int64_t i = 0; i < 3333; ++i) batch.logits.at(r, i) = normal(random);
    batch.rows[static_cast<std::size_t>(r)] = random_wish(3333, random);
  }
  batch.run(*cuda);
  for (std::int64_t r = 0; r < 20; ++r) {
    const auto at = static_cast<std::size_t>(r);
    Batch alone(1, 3333, 0);
    for (std::int64_t i = 0; i < 3333; ++i) alone.logits.at(0, i) = batch.logits.at(r, i);
    alone.rows[0] = batch.rows[at];
    alone.run(*cuda);
    EXPECT_EQ(alone.results[0].token_id, batch.results[at].token_id);
    EXPECT_EQ(alone.results[0].token_logprob, batch.results[at].token_logprob);
    EXPECT_EQ(alone.results[0].target_logprob, batch.results[at].target_logprob);
  }
}

}  // namespace
}  // namespace sluice::kernels
