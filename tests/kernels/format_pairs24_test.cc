// pairs24 beyond what every sparse format must do: its bytes against an encoder in Python
// (tests/golden/formats/encode_pairs24.py), the size of its lists, masks that are hard to level, and entries.
#include <algorithm>
#include <functional>
#include <random>

#include <gtest/gtest.h>

#include "kernels/format/pairs24/unit.h"
#include "tests/kernels/damaged_matrix.h"
#include "tests/kernels/format_golden.h"
#include "tests/kernels/pairs24_entries.h"

namespace sluice::kernels {
namespace {

using testing::random_stored;
using testing::StoredMatrix;

constexpr WeightFormat kFormat{Encoding::kPairs24, DType::kF16};
constexpr std::int64_t kFullBytes = 16 + 4 * 704 + 512 + 64 * 256 * 2;

TEST(Pairs24Golden, AreTheBytesThatThePageDescribes) { testing::expect_golden("pairs24_cases.txt", 19, 5); }

using Unit = std::span<const std::byte>;

std::vector<Unit> units_of(const StoredMatrix& matrix) {
  const TileTable table(matrix.view());
  std::vector<Unit> units;
  for (std::int64_t i = 0; i < table.num_tiles(); ++i) units.push_back(table.tile(i));
  return units;
}

PairsStart start_of(Unit unit, int strip) {
  return PairsStart::unpack(testing::words_of(unit.first(16))[static_cast<std::size_t>(strip)]);
}
bool has_entries(Unit unit) { return start_of(unit, 0).entries != PairsStart::kMasks; }
/// Byte behind masks or entries.
std::int64_t lists_begin(Unit unit) {
  if (!has_entries(unit)) return kPairsFixedBytes + kPairsMaskBytes;
  std::int64_t at = kPairsFixedBytes;
  for (int s = 0; s < kPairsStrips; ++s) at += 4 * std::int64_t{pairs_entry_words(start_of(unit, s).entries)};
  return at;
}

/// Words that the lists of these quads have: a pair of each that holds anything and, with masks, another word
/// of one that holds three or four.
std::int64_t num_words(const std::vector<std::uint16_t>& values, bool with_left) {
  std::int64_t words = 0;
  for (std::size_t i = 0; i < values.size(); i += 4) {
    const auto zeros = std::count(values.begin() + static_cast<std::ptrdiff_t>(i),
                                  values.begin() + static_cast<std::ptrdiff_t>(i + 4), std::uint16_t{0});
    words += (zeros < 4 ? 1 : 0) + (with_left && zeros < 2 ? 1 : 0);
  }
  return words;
}

TEST(Pairs24, LeavesFewHolesInRandomMatrices) {
  struct Case {
    double sparsity, most_percent;
  };
  for (const Case& c : {Case{0.0, 0}, {0.3, 1.8}, {0.5, 1.7}, {0.7, 2.0}, {0.8, 2.4}, {0.9, 3.7}}) {
    double places = 0;
    double words = 0;
    const StoredMatrix matrix = random_stored(kFormat, 1024, 1024, c.sparsity);
    for (const Unit unit : units_of(matrix)) {
      const auto lists = testing::words_of(unit.subspan(static_cast<std::size_t>(lists_begin(unit))));
      places += static_cast<double>(lists.size());
      words +=
          static_cast<double>(lists.size()) - static_cast<double>(std::count(lists.begin(), lists.end(), 0U));
    }
    EXPECT_LE(100 * (places / words - 1), c.most_percent) << c.sparsity;
  }
}

TEST(Pairs24, HasEntriesWhereLittleIsLeft) {
  struct Case {
    double sparsity;
    std::size_t fewest, most;  // units with entries, of 64
  };
  for (const Case& c :
       {Case{0.0, 0, 0}, {0.5, 0, 0}, {0.7, 0, 0}, {0.85, 20, 63}, {0.92, 64, 64}, {1.0, 64, 64}}) {
    SCOPED_TRACE(c.sparsity);
    const StoredMatrix matrix = random_stored(kFormat, 1024, 1024, c.sparsity);
    const std::vector<Unit> units = units_of(matrix);
    const auto found = static_cast<std::size_t>(std::count_if(units.begin(), units.end(), has_entries));
    EXPECT_GE(found, c.fewest);
    EXPECT_LE(found, c.most);
    EXPECT_NO_THROW(matrix.check());
    EXPECT_EQ(StoredMatrix(kFormat, 1024, 1024, matrix.expand()).bytes, matrix.bytes);
  }
}

/// One unit with a nonzero wherever `is_nonzero` says so.
template <class IsNonzero>
std::vector<std::uint16_t> unit_values(const IsNonzero& is_nonzero) {
  std::vector<std::uint16_t> values;
  for (int r = 0; r < 64; ++r) {
    for (int c = 0; c < 256; ++c)
      values.push_back(is_nonzero(r, c) ? static_cast<std::uint16_t>(0x3C00 + (r * 256 + c) % 1024) : 0);
  }
  return values;
}

TEST(Pairs24, HoldsMasksThatAreHardToLevel) {
  const std::vector<std::function<bool(int, int)>> masks = {
      [](int r, int c) { return r % 8 == 3 && c / 4 % 4 == 1; },      // one lane has all
      [](int r, int c) { return r % 8 != 3 || c / 4 % 4 != 1; },      // one lane has none
      [](int r, int c) { return r % 2 == 0 && c < 256; },             // half the lanes
      [](int r, int c) { return r / 16 == 2 && c / 32 == 7; },        // the last step of one strip
      [](int r, int c) { return (r + c / 32) % 8 == 0; },             // each lane another step
      [](int r, int c) { return r < 48 || c % 64 < 32; },             // three full strips
      [](int r, int c) { return r >= 16 || (c > 13 && r % 8 > 1); },  // full ones on uneven ones
      [](int r, int c) { return c % 4 != 1 && r != 5; },
      [](int, int c) { return c % 4 == 3; },
      [](int r, int c) { return c % 4 == 0 || (c < 32 && r % 8 == 7); },
      [](int r, int c) { return r == 63 && c == 255; },
      [](int r, int c) { return r * 256 + c != 7777; },
  };
  for (std::size_t i = 0; i < masks.size(); ++i) {
    SCOPED_TRACE(i);
    const auto values = unit_values(masks[i]);
    const StoredMatrix matrix(kFormat, 64, 256, values);
    ASSERT_NO_THROW(matrix.check());
    ASSERT_EQ(matrix.expand(), values);
    EXPECT_LE(std::ssize(units_of(matrix)[0]), kFullBytes);
  }
}

TEST(Pairs24, IsNeverLargerThanWithoutLevelling) {
  // Lanes of any lengths, so that few levels fit.
  for (std::uint32_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    int density[64][2];
    for (auto& row : density) {
      for (int& part : row) part = static_cast<int>(random() % 3 == 0 ? 1000 : random() % 1001);
    }
    const int columns = static_cast<int>(random() % 33);
    const auto values = unit_values([&](int r, int c) {
      return static_cast<int>(random() % 1000) < density[r][c / 4 % 8 < columns % 8 ? 0 : 1] &&
             c / 32 * 4 < columns;
    });
    const StoredMatrix matrix(kFormat, 64, 256, values);
    ASSERT_NO_THROW(matrix.check());
    ASSERT_EQ(matrix.expand(), values);
    const Unit unit = units_of(matrix)[0];
    std::int64_t rows = 0;
    for (int strip = 0; strip < 4; ++strip) {
      std::int64_t longest = 0;
      for (int lane = 0; lane < 32; ++lane) {
        std::vector<std::uint16_t> of_lane;
        for (int i = 0; i < 32; ++i) {
          const auto at = static_cast<std::ptrdiff_t>((strip * 16 + pairs_row(lane, i % 4)) * 256 +
                                                      i / 4 * 32 + pairs_quad(lane, i % 4) * 4);
          of_lane.insert(of_lane.end(), values.begin() + at, values.begin() + at + 4);
        }
        longest = std::max(longest, num_words(of_lane, !has_entries(unit)));
      }
      rows += longest;
    }
    EXPECT_LE(std::ssize(unit), lists_begin(unit) + rows * kPairsListStride);
  }
}

/// What is stored of a unit does not depend on the one ahead of it, which the encoder takes a hint from.
TEST(Pairs24, StoresAUnitTheSameWhateverIsAheadOfIt) {
  const std::vector<std::function<bool(int, int)>> masks = {
      [](int, int) { return false; },
      [](int r, int c) { return r / 16 == 3 && c < 3; },  // 16 entries
      [](int r, int c) { return r < 16 && c < 4; },       // 16 quads, but 32 entries
      [](int, int) { return true; },
  };
  for (std::size_t first = 0; first < masks.size(); ++first) {
    for (std::size_t second = 0; second < masks.size(); ++second) {
      SCOPED_TRACE(first * 10 + second);
      const auto left = unit_values(masks[first]);
      const auto right = unit_values(masks[second]);
      std::vector<std::uint16_t> both;
      for (std::ptrdiff_t r = 0; r < 64; ++r) {
        both.insert(both.end(), left.begin() + r * 256, left.begin() + (r + 1) * 256);
        both.insert(both.end(), right.begin() + r * 256, right.begin() + (r + 1) * 256);
      }
      const StoredMatrix pair(kFormat, 64, 512, both);
      const StoredMatrix alone(kFormat, 64, 256, right);
      EXPECT_EQ(pair.expand(), both);
      EXPECT_TRUE(std::ranges::equal(units_of(pair)[1], units_of(alone)[0]));
      EXPECT_EQ(has_entries(units_of(alone)[0]), second < 2);
    }
  }
}

/// The encoder stops at 16.
TEST(Pairs24, ReadsUpTo32Entries) {
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    const testing::ManyEntries many(dtype);
    testing::expect_many_entries(many.view());
    std::vector<std::uint16_t> expanded(many.values.size());
    codec_of(Encoding::kPairs24).expand(many.view(), 0, many.kRows, expanded);
    EXPECT_EQ(expanded, many.values);
  }
}

}  // namespace
}  // namespace sluice::kernels
