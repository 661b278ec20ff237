#include "kernels/ops/embedding.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "tests/kernels/embedding_cases.h"
#include "tests/kernels/kernel_support.h"

namespace sluice::kernels {
namespace {

using namespace testing;

class Embedding : public ::testing::TestWithParam<EmbeddingCase> {};

TEST_P(Embedding, CopiesAndAddsRowsExactlyOnEveryTarget) {
  const EmbeddingCase& c = GetParam();
  Random random(3);
  const DenseWeight table(c.format, c.rows, c.dim, random);
  const GuardedMatrix before = GuardedMatrix::random(c.tokens, c.dim, c.padding, random);
  std::vector<std::int32_t> ids;
  for (std::int64_t t = 0; t < c.tokens; ++t) {
    ids.push_back(static_cast<std::int32_t>(between(random, 0, c.rows - 1)));
  }
  for_each_target([&] {
    ThreadPool pool(2);
    Stream stream(pool);
    GuardedMatrix y = before;
    const EmbeddingArgs args{.ids = ids, .table = table.view(), .accumulate = c.accumulate, .y = y.view()};
    const std::vector<Expected> expected = embedding_ref(args);
    embedding(args, stream);
    y.expect_near(expected);
    y.expect_guards_intact();
  });
}

INSTANTIATE_TEST_SUITE_P(Cpu, Embedding, ::testing::ValuesIn(kEmbeddingCases),
                         [](const auto& test) { return std::string(test.param.name); });

// Every fp16 and bf16 bit pattern widens as core/dtype.h says, infinities and subnormals included, NaN to
// NaN.
TEST(EmbeddingWidening, IsExactForEveryBitPattern) {
  std::vector<std::uint16_t> bits(0x10000);
  for (std::size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<std::uint16_t>(i);
  const std::vector<std::int32_t> ids{0};
  for (const WeightFormat format : {WeightFormat::kDenseF16, WeightFormat::kDenseBF16}) {
    for_each_target([&] {
      ThreadPool pool(1);
      Stream stream(pool);
      GuardedMatrix y(1, 0x10000);
      embedding({.ids = ids, .table = {format, std::as_bytes(std::span(bits)), 1, 0x10000}, .y = y.view()},
                stream);
      for (std::size_t i = 0; i < bits.size(); ++i) {
        const float expected =
            format == WeightFormat::kDenseF16 ? to_float(Half{bits[i]}) : to_float(BFloat16{bits[i]});
        const float actual = y.at(0, static_cast<std::int64_t>(i));
        if (std::isnan(expected)) {
          ASSERT_TRUE(std::isnan(actual)) << i;
        } else {
          ASSERT_EQ(std::bit_cast<std::uint32_t>(actual), std::bit_cast<std::uint32_t>(expected)) << i;
        }
      }
    });
  }
}

TEST(EmbeddingErrors, RefusesIdsOutsideTheTableAndForeignOperands) {
  Random random(1);
  const DenseWeight table(WeightFormat::kDenseF16, 4, 8, random);
  GuardedMatrix y(2, 8);
  ThreadPool pool(1);
  Stream stream(pool);
  for (const std::int32_t id : {-1, 4}) {
    const std::vector<std::int32_t> ids{0, id};
    try {
      embedding({.ids = ids, .table = table.view(), .y = y.view()}, stream);
      ADD_FAILURE() << "id " << id << " was accepted";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kInternal);
      EXPECT_THAT(e.what(),
                  ::testing::HasSubstr(fmt::format("row 1 looks up id {} in a table of 4 rows", id)));
    }
  }
  const std::vector<std::int32_t> ids{0, 1};
  const EmbeddingArgs good{.ids = ids, .table = table.view(), .y = y.view()};
  EmbeddingArgs bad = good;
  bad.table.data = bad.table.data.first(8);
  EXPECT_THAT(why_unsupported(bad, DeviceKind::kCpu), ::testing::HasSubstr("table [4, 8] has 8 bytes"));
  bad = good;
  bad.ids = bad.ids.first(1);
  EXPECT_THROW(embedding(bad, stream), Error);
  stream.restrict_operands(y.bytes());
  EXPECT_THROW(embedding(good, stream), Error);
  stream.restrict_operands(table.view().data);
  EXPECT_THROW(embedding(good, stream), Error);
}

}  // namespace
}  // namespace sluice::kernels
