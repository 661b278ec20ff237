#include "core/checkpoint/tensor_record.h"

#include <cstring>
#include <random>

#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include "tests/fakes/temp_folder.h"

namespace sluice {
namespace {

/// Element (i0, i1, ...) of the tensor, looked up one by one in a storage that holds its own indexes.
std::vector<float> expected(const std::vector<std::int64_t>& shape,
                            const std::vector<std::int64_t>& strides) {
  std::vector<float> values;
  std::vector<std::int64_t> index(shape.size(), 0);
  for (;;) {
    std::int64_t at = 0;
    for (std::size_t d = 0; d < shape.size(); ++d) at += index[d] * strides[d];
    values.push_back(static_cast<float>(at));
    std::size_t d = shape.size();
    while (d > 0 && ++index[d - 1] == shape[d - 1]) index[--d] = 0;
    if (d == 0) return values;
  }
}

TensorRecord record_of(std::vector<std::int64_t> shape, std::vector<std::int64_t> strides,
                       std::int64_t offset) {
  TensorRecord record;
  record.tensor.dtype = DType::kF32;
  record.tensor.shape = std::move(shape);
  record.place = {offset, std::move(strides)};
  return record;
}

std::vector<float> read(ByteSource& source, const TensorRecord& record, std::int64_t first,
                        std::int64_t count) {
  std::vector<float> out(static_cast<std::size_t>(count), -1.0F);
  read_elements(source, record.tensor, record.place, first, count, std::as_writable_bytes(std::span(out)));
  return out;
}

TEST(ReadElements, GathersAnyStridesInAnyPiece) {
  std::vector<float> storage(20'000);
  for (std::size_t i = 0; i < storage.size(); ++i) storage[i] = static_cast<float>(i);
  MemorySource source(std::as_bytes(std::span(storage)), "storage");
  std::mt19937 random(7);
  const auto below = [&](std::int64_t n) {
    return static_cast<std::int64_t>(random() % static_cast<unsigned>(n));
  };
  for (int round = 0; round < 300; ++round) {
    std::vector<std::int64_t> shape, strides;
    for (std::int64_t d = 0, rank = 1 + below(4); d < rank; ++d) {
      shape.push_back(1 + below(9));
      strides.push_back(below(3) == 0 ? below(2) : below(200));
    }
    const TensorRecord record = record_of(shape, strides, 0);
    const std::vector<float> all = expected(shape, strides);
    const std::int64_t elements = record.tensor.num_elements();
    ASSERT_EQ(elements, static_cast<std::int64_t>(all.size()));
    const std::int64_t first = below(elements);
    const std::int64_t count = below(elements - first + 1);
    EXPECT_EQ(read(source, record, first, count),
              std::vector<float>(all.begin() + first, all.begin() + first + count))
        << fmt::format("shape {} strides {} first {} count {}", shape, strides, first, count);
  }
}

// 2200 x 2200 fp32 transposed spans 19 MiB, more than the window of 16 MiB.
TEST(ReadElements, GathersATransposedMatrixLargerThanItsWindow) {
  constexpr std::int64_t kSide = 2200;
  std::vector<float> storage(kSide * kSide + 1);
  for (std::size_t i = 0; i < storage.size(); ++i) storage[i] = static_cast<float>(i) - 1;
  MemorySource source(std::as_bytes(std::span(storage)), "storage");
  const TensorRecord record = record_of({kSide, kSide}, {1, kSide}, 4);
  const std::vector<float> got = read(source, record, 5, kSide * kSide - 5);
  for (std::int64_t i = 5; i < kSide * kSide; ++i) {
    const std::int64_t transposed = i / kSide + i % kSide * kSide;
    ASSERT_EQ(got[static_cast<std::size_t>(i - 5)], static_cast<float>(transposed)) << i;
  }
}

TEST(ReadElements, RefusesARequestOutsideTheTensor) {
  const std::vector<float> storage(4);
  MemorySource source(std::as_bytes(std::span(storage)), "storage");
  const TensorRecord record = record_of({4}, {}, 0);
  std::vector<std::byte> out(8);
  EXPECT_EQ(testing::error_of([&] { read_elements(source, record.tensor, record.place, 3, 2, out); }).code(),
            Code::kInternal);
  EXPECT_EQ(testing::error_of([&] { read_elements(source, record.tensor, record.place, 0, 3, out); }).code(),
            Code::kInternal);
}

TEST(CheckedElements, SeesEveryOverflow) {
  EXPECT_EQ(checked_elements({}, DType::kF32), 1);
  EXPECT_EQ(checked_elements(std::vector<std::int64_t>{3, 0, 5}, DType::kF32), 0);
  EXPECT_EQ(checked_elements(std::vector<std::int64_t>{3, 5}, DType::kF32), 15);
  EXPECT_EQ(checked_elements(std::vector<std::int64_t>{-1}, DType::kF32), std::nullopt);
  EXPECT_EQ(checked_elements(std::vector<std::int64_t>{1LL << 32, 1LL << 31}, DType::kU8), std::nullopt);
  EXPECT_EQ(checked_elements(std::vector<std::int64_t>{1LL << 61}, DType::kF32), std::nullopt);
  EXPECT_EQ(checked_elements(std::vector<std::int64_t>{1LL << 61}, DType::kF16), 1LL << 61);
}

}  // namespace
}  // namespace sluice
