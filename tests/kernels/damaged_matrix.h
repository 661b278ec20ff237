// What the tests of damaged matrices share: a stored matrix whose bytes a test changes, and a table of
// changes that check must refuse.
#pragma once

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/format/tile_table.h"
#include "tests/kernels/format_support.h"
#include "tests/kernels/weight_cases.h"
#include "tests/support/error_of.h"

namespace sluice::kernels::testing {

/// A stored matrix that a test changes. Each format's test derives its own, which knows its tiles.
struct DamagedMatrix {
  StoredMatrix matrix;

  std::size_t size() const { return matrix.bytes.size(); }
  template <class T>
  T get(std::size_t at) const {
    T x{};
    std::memcpy(&x, matrix.bytes.data() + at, sizeof(x));
    return x;
  }
  template <class T>
  void set(std::size_t at, T x) {
    std::memcpy(matrix.bytes.data() + at, &x, sizeof(x));
  }
  std::size_t tile(std::int64_t index) const {
    return static_cast<std::size_t>(TileTable(matrix.view()).tile(index).data() - matrix.bytes.data());
  }
  std::size_t tile_end(std::int64_t index) const {
    return tile(index) + TileTable(matrix.view()).tile(index).size();
  }
  std::size_t table() const {
    return size() - static_cast<std::size_t>(tile_table_bytes(
                        num_tiles(matrix.format.encoding, matrix.tensor.rows, matrix.tensor.cols)));
  }
};

inline StoredMatrix random_stored(WeightFormat format, std::int64_t rows, std::int64_t cols,
                                  double sparsity) {
  const WeightCase c{"random", rows, cols, Mask::kRandom, sparsity};
  return StoredMatrix(format, rows, cols, make_weights(c, format.dtype));
}

template <class Target>
struct Damage {
  const char* what;
  std::function<void(Target&)> change;
  std::string message;
};

template <class Target>
void expect_all_refused(const Target& good, const std::vector<Damage<Target>>& damages) {
  ASSERT_NO_THROW(good.matrix.check());
  for (const Damage<Target>& damage : damages) {
    SCOPED_TRACE(damage.what);
    Target target = good;
    damage.change(target);
    const Error error = ::sluice::testing::error_of([&] { target.matrix.check(); });
    EXPECT_EQ(error.code(), Code::kCorrupt);
    EXPECT_THAT(error.what(), ::testing::HasSubstr("tensor " + target.matrix.tensor.name + ": "));
    EXPECT_THAT(error.what(), ::testing::HasSubstr(damage.message));
    EXPECT_FALSE(error.fix().empty());
  }
}

}  // namespace sluice::kernels::testing
