#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "kernels/device/cpu/simd.h"
#include "kernels/format/format.h"

namespace sluice::kernels {
namespace {

using ::testing::HasSubstr;

template <class T>
constexpr DType kTypeOf = DType::kF32;
template <>
constexpr DType kTypeOf<double> = DType::kF64;
template <>
constexpr DType kTypeOf<Half> = DType::kF16;
template <>
constexpr DType kTypeOf<BFloat16> = DType::kBF16;

template <class Stored, class Source>
std::vector<Stored> encode(const std::vector<Source>& values, std::int64_t cols = 7, std::int64_t first = 0) {
  const TensorSpec tensor{"decoder.layers.0.fc1.weight", 1, 1 << 20, cols, false, SplitRule::kRows};
  std::vector<Stored> out(values.size());
  const SourceRun run{&tensor, kTypeOf<Source>, std::as_bytes(std::span(values)), first};
  const std::int64_t bytes = to_stored_values(run, kTypeOf<Stored>, std::as_writable_bytes(std::span(out)));
  EXPECT_EQ(bytes, static_cast<std::int64_t>(out.size() * sizeof(Stored)));
  return out;
}

/// Bit patterns of float that matter for rounding to 16 bits: ties, both neighbours of ties, subnormals, and
/// noise.
std::vector<float> hard_floats() {
  std::vector<float> values;
  std::mt19937 random(1);
  for (std::uint32_t high = 0; high < 0x10000U; high += 13) {
    for (const std::uint32_t low :
         {0x0000U, 0x0001U, 0x0FFFU, 0x1000U, 0x1001U, 0x7FFFU, 0x8000U, 0x8001U, 0xFFFFU, 0x3000U}) {
      values.push_back(std::bit_cast<float>((high << 16) | low));
    }
    values.push_back(std::bit_cast<float>((high << 16) | static_cast<std::uint32_t>(random() & 0xFFFFU)));
  }
  return values;
}

template <class T>
std::vector<T> keep_if(const std::vector<T>& values, double limit) {
  std::vector<T> kept;
  for (const T value : values) {
    if (std::fabs(static_cast<double>(value)) <= limit) kept.push_back(value);
  }
  return kept;
}

class DenseFormat : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { force_simd_target(GetParam()); }
  void TearDown() override { force_simd_target(""); }
};

TEST_P(DenseFormat, RoundsFp32ToNearestEven) {
  const std::vector<float> in_half_range = keep_if(hard_floats(), 65519);
  const auto halves = encode<Half>(in_half_range);
  for (std::size_t i = 0; i < halves.size(); ++i)
    ASSERT_EQ(halves[i], to_half(in_half_range[i])) << in_half_range[i];
  const std::vector<float> in_bf16_range = keep_if(hard_floats(), 3.38e38);
  const auto brains = encode<BFloat16>(in_bf16_range);
  for (std::size_t i = 0; i < brains.size(); ++i)
    ASSERT_EQ(brains[i], to_bfloat16(in_bf16_range[i])) << in_bf16_range[i];
}

TEST_P(DenseFormat, RoundsFp64OnceNotTwice) {
  std::vector<double> values;
  for (const float value : keep_if(hard_floats(), 60000)) {
    for (const double nudge : {0.0, 1e-12, -1e-12}) values.push_back(value * (1 + nudge));
  }
  values.push_back(1e-300);
  const auto halves = encode<Half>(values);
  for (std::size_t i = 0; i < values.size(); ++i) {
    // The nearest of the result's neighbourhood, ties to the even one, found without our rounding.
    const double error = std::fabs(to_float(halves[i]) - values[i]);
    for (const int step : {-1, 1}) {
      const Half other{static_cast<std::uint16_t>(halves[i].bits + step)};
      const double other_error = std::fabs(to_float(other) - values[i]);
      if (std::isnan(other_error) || (halves[i].bits & 0x7FFFU) + static_cast<unsigned>(step) > 0x7C00U)
        continue;
      ASSERT_TRUE(error < other_error || (error == other_error && (halves[i].bits & 1U) == 0)) << values[i];
    }
  }
}

TEST_P(DenseFormat, KeepsEveryFinite16BitValue) {
  std::vector<Half> halves;
  std::vector<BFloat16> brains;
  for (std::uint32_t bits = 0; bits < 0x10000U; ++bits) {
    if ((bits & 0x7C00U) != 0x7C00U) halves.push_back({static_cast<std::uint16_t>(bits)});
    if ((bits & 0x7F80U) != 0x7F80U) brains.push_back({static_cast<std::uint16_t>(bits)});
  }
  EXPECT_EQ(encode<Half>(halves), halves);
  EXPECT_EQ(encode<BFloat16>(brains), brains);
  // In place: a reader may put the source where the stored bytes belong.
  const TensorSpec tensor{"t", 0, 1, static_cast<std::int64_t>(halves.size()), true, SplitRule::kReplicated};
  std::vector<Half> same = halves;
  to_stored_values({&tensor, DType::kF16, std::as_bytes(std::span(same)), 0}, DType::kF16,
                   std::as_writable_bytes(std::span(same)));
  EXPECT_EQ(same, halves);

  for (const auto& [format, bytes] :
       {std::pair{WeightFormat::kDenseF16, std::as_bytes(std::span(halves))},
        std::pair{WeightFormat::kDenseBF16, std::as_bytes(std::span(brains))}}) {
    const auto count = static_cast<std::int64_t>(bytes.size() / 2);
    std::vector<float> decoded(static_cast<std::size_t>(count));
    decode_matrix({format, bytes, 1, count}, decoded);
    for (std::size_t i = 0; i < decoded.size(); ++i) {
      const float expected = format == WeightFormat::kDenseF16 ? to_float(halves[i]) : to_float(brains[i]);
      ASSERT_EQ(std::bit_cast<std::uint32_t>(decoded[i]), std::bit_cast<std::uint32_t>(expected));
    }
  }
}

TEST_P(DenseFormat, ConvertsBetweenThe16BitTypes) {
  std::vector<BFloat16> brains(3000);
  for (std::size_t i = 0; i < brains.size(); ++i)
    brains[i] = to_bfloat16(static_cast<float>(i) * 0.37F - 500);
  const auto halves = encode<Half>(brains);
  for (std::size_t i = 0; i < brains.size(); ++i) ASSERT_EQ(halves[i], to_half(to_float(brains[i])));
  const auto back = encode<BFloat16>(halves);
  for (std::size_t i = 0; i < brains.size(); ++i) ASSERT_EQ(back[i], brains[i]);
}

template <class Stored, class Source>
void expect_refused(Source value, std::size_t size, std::size_t at, const char* what) {
  std::vector<Source> values(size);
  values[at] = value;
  try {
    encode<Stored>(values, 10, 20);
    ADD_FAILURE() << what << " was stored";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kInvalidArgument);
    EXPECT_THAT(error.what(), HasSubstr(fmt::format("tensor decoder.layers.0.fc1.weight: row {}, column {}: ",
                                                    (at + 20) / 10, (at + 20) % 10)));
    EXPECT_THAT(error.what(), HasSubstr(what));
  }
}

TEST_P(DenseFormat, RefusesWhatItCannotHoldWithItsPlace) {
  const float inf = std::numeric_limits<float>::infinity();
  for (const std::size_t at : {0U, 5U, 1023U, 1024U, 2046U, 2047U, 2050U}) {
    expect_refused<Half>(65520.0F, 2051, at, "65520 is beyond the range of fp16");
    expect_refused<Half>(-1e10F, 2051, at, "-1e+10 is beyond the range of fp16");
    expect_refused<Half>(std::nanf(""), 2051, at, "nan is not a finite number");
    expect_refused<Half>(-inf, 2051, at, "-inf is not a finite number");
    expect_refused<Half>(70000.0, 2051, at, "70000 is beyond");
    expect_refused<Half>(1e300, 2051, at, "1e+300 is beyond");
    expect_refused<Half>(to_bfloat16(1e10F), 2051, at, "is beyond the range of fp16");
    expect_refused<Half>(Half{0x7C00}, 2051, at, "inf is not a finite number");
    expect_refused<Half>(Half{0xFE00}, 2051, at, "nan is not a finite number");
    expect_refused<BFloat16>(BFloat16{0x7F80}, 2051, at, "inf is not a finite number");
    expect_refused<BFloat16>(3.4e38F, 2051, at, "is beyond the range of bf16");
  }
  EXPECT_EQ(encode<Half>(std::vector{65519.99F})[0].bits, 0x7BFF);
  EXPECT_EQ(encode<Half>(std::vector<float>(64, 65519.99F))[5].bits, 0x7BFF);
}

INSTANTIATE_TEST_SUITE_P(Targets, DenseFormat, ::testing::ValuesIn(simd_targets()));

TEST(Format, NamesTheTensorThatIsNoNumber) {
  const TensorSpec tensor{"decoder.x", 0, 1, 4, true, SplitRule::kReplicated};
  EXPECT_EQ(dense_format_of(DType::kBF16, tensor), WeightFormat::kDenseBF16);
  EXPECT_EQ(dense_format_of(DType::kF32, tensor), WeightFormat::kDenseF16);
  const std::vector<std::int32_t> integers(4);
  std::vector<Half> out(4);
  for (const auto& body : std::vector<std::function<void()>>{
           [&] { dense_format_of(DType::kI8, tensor); },
           [&] {
             to_stored_values({&tensor, DType::kI32, std::as_bytes(std::span(integers)), 0}, DType::kF16,
                              std::as_writable_bytes(std::span(out)));
           }}) {
    try {
      body();
      ADD_FAILURE();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kUnsupported);
      EXPECT_THAT(error.what(), HasSubstr("decoder.x"));
    }
  }
}

}  // namespace
}  // namespace sluice::kernels
