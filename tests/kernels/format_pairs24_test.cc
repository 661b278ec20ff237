// pairs24 beyond what every sparse format must do: the size of its lists, masks that are hard to level, and
// damage.
#include <algorithm>
#include <functional>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/format/pairs24/unit.h"
#include "tests/kernels/csl_fixture.h"
#include "tests/kernels/weight_cases.h"
#include "tests/support/error_of.h"

namespace sluice::kernels {
namespace {

using ::sluice::testing::error_of;
using ::testing::HasSubstr;
using testing::StoredMatrix;

constexpr WeightFormat kFormat{Encoding::kPairs24, DType::kF16};
constexpr std::int64_t kFullBytes = 16 + 4 * 832 + 64 * 256 * 2;

StoredMatrix random_matrix(std::int64_t rows, std::int64_t cols, double sparsity, DType dtype = DType::kF16) {
  const testing::WeightCase c{"random", rows, cols, testing::Mask::kRandom, sparsity};
  return StoredMatrix::encode({Encoding::kPairs24, dtype}, rows, cols, make_weights(c, dtype));
}

std::int64_t unit_bytes(const StoredMatrix& matrix) {
  return static_cast<std::int64_t>(TileTable(matrix.view()).tile(0).size());
}

/// Words of the lists of a matrix of whole units: a pair of every quad that holds anything, another word of
/// one that holds three or four.
std::int64_t num_words(const std::vector<std::uint16_t>& values) {
  std::int64_t words = 0;
  for (std::size_t i = 0; i < values.size(); i += 4) {
    const auto zeros = std::count(values.begin() + static_cast<std::ptrdiff_t>(i),
                                  values.begin() + static_cast<std::ptrdiff_t>(i + 4), std::uint16_t{0});
    words += (zeros < 4 ? 1 : 0) + (zeros < 2 ? 1 : 0);
  }
  return words;
}

TEST(Pairs24, LeavesFewHolesInRandomMatrices) {
  struct Case {
    double sparsity, most_percent;
  };
  for (const Case& c : {Case{0.0, 0}, {0.3, 1.8}, {0.5, 1.7}, {0.7, 2.0}, {0.8, 2.4}, {0.9, 3.7}}) {
    const StoredMatrix matrix = random_matrix(1024, 1024, c.sparsity);
    const std::int64_t units = num_tiles(Encoding::kPairs24, 1024, 1024);
    const std::int64_t lists = static_cast<std::int64_t>(matrix.bytes.size()) - tile_table_bytes(units) -
                               units * static_cast<std::int64_t>(sizeof(PairsHead));
    const auto words = 4 * static_cast<double>(num_words(matrix.expand()));
    EXPECT_LE(100 * (static_cast<double>(lists) / words - 1), c.most_percent) << c.sparsity;
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
    const StoredMatrix matrix = StoredMatrix::encode(kFormat, 64, 256, values);
    ASSERT_NO_THROW(matrix.check());
    ASSERT_EQ(matrix.expand(), values);
    EXPECT_LE(unit_bytes(matrix), kFullBytes);
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
    const StoredMatrix matrix = StoredMatrix::encode(kFormat, 64, 256, values);
    ASSERT_NO_THROW(matrix.check());
    ASSERT_EQ(matrix.expand(), values);
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
        longest = std::max(longest, num_words(of_lane));
      }
      rows += longest;
    }
    EXPECT_LE(unit_bytes(matrix), static_cast<std::int64_t>(sizeof(PairsHead)) + rows * kPairsListStride);
  }
}

/// A stored matrix that a test changes.
struct Target {
  StoredMatrix matrix;

  std::size_t unit(std::int64_t index) const {
    return static_cast<std::size_t>(TileTable(matrix.view()).tile(index).data() - matrix.bytes.data());
  }
  std::size_t unit_end(std::int64_t index) const {
    return unit(index) + TileTable(matrix.view()).tile(index).size();
  }
  std::size_t table() const {
    return matrix.bytes.size() - static_cast<std::size_t>(tile_table_bytes(
                                     num_tiles(Encoding::kPairs24, matrix.spec.rows, matrix.spec.cols)));
  }
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
  template <class Change>
  void change_head(std::int64_t index, const Change& change) {
    auto head = get<PairsHead>(unit(index));
    change(head);
    set(unit(index), head);
  }
  /// The first word of a lane of unit `index` that is a pair of step 0.
  std::size_t word(std::int64_t index, int strip, int& lane) const {
    const auto head = get<PairsHead>(unit(index));
    const PairsStrip& fixed = head.strips[strip];
    for (lane = 0; lane < kPairsLanes; ++lane) {
      const PairsJump jump = PairsJump::unpack(fixed.jumps[lane]);
      if ((fixed.pairs[lane] & 15U) == 0 || jump.step == 0) continue;
      return unit(index) + head.starts[strip] +
             static_cast<std::size_t>(4 * lane + jump.offset * kPairsListStride);
    }
    ADD_FAILURE() << "no such lane";
    return unit(index) + sizeof(PairsHead);
  }
  void set_word(std::int64_t index, std::uint32_t value) {
    int lane = 0;
    set(word(index, 0, lane), value);
  }
};

struct Damage {
  const char* what;
  std::function<void(Target&)> change;
  std::string message;
};

const std::vector<Damage>& damages() {
  static const std::vector<Damage> all = {
      {"cut to nothing", [](Target& t) { t.matrix.bytes.clear(); }, "0 bytes instead of"},
      {"longer", [](Target& t) { t.matrix.bytes.insert(t.matrix.bytes.begin(), 16, std::byte{}); },
       "tiles end at"},
      {"not ascending", [](Target& t) { t.set(t.table() + 8, 0U); }, "tile 1 of 4 covers bytes"},
      {"no room for the fixed parts", [](Target& t) { t.set(t.table() + 4, 200U); },
       "unit 0 of 4: 3200 bytes instead of 3344 to 36112"},
      {"start in the fixed parts",
       [](Target& t) { t.change_head(1, [](auto& head) { head.starts[0] = 3340; }); },
       "unit 1 of 4: the lists of strip 0 start at byte 3340, which is no word between 3344 and"},
      {"start unaligned", [](Target& t) { t.change_head(1, [](auto& head) { head.starts[2] += 2; }); },
       "unit 1 of 4: the lists of strip 2 start at byte"},
      {"start beyond the unit",
       [](Target& t) { t.change_head(2, [](auto& head) { head.starts[3] = 1U << 31; }); },
       "unit 2 of 4: the lists of strip 3 start at byte 2147483648"},
      {"lists beyond the unit",
       [](Target& t) {
         t.change_head(0, [&](auto& head) { head.starts[1] = static_cast<std::uint32_t>(t.unit_end(0)); });
       },
       "(lane 0 of strip 1): its word at byte"},
      {"jump beyond the unit",
       [](Target& t) {
         t.change_head(0, [](auto& head) {
           for (auto& jump : head.strips[3].jumps) jump = PairsJump{1, 0, 2047}.pack();
         });
       },
       "unit 0 of 4: the quad at row 48, column "},
      {"more pairs than words",
       [](Target& t) {
         t.change_head(0, [](auto& head) { std::fill_n(head.strips[3].pairs, kPairsLanes, 0xFFFFFFFFU); });
       },
       "(lane 0 of strip 3): its word at byte "},
      {"metadata that do not rise",
       [](Target& t) { t.change_head(3, [](auto& head) { head.strips[1].metadata[0][0] &= ~15U; }); },
       "unit 3 of 4: the quad at row 16, column 0 (lane 0 of strip 1): metadata 0x0, columns 0 and 0, do not "
       "rise"},
      {"equal metadata",
       [](Target& t) { t.change_head(3, [](auto& head) { head.strips[0].metadata[31][3] |= 0xF0000000U; }); },
       "(lane 31 of strip 0): metadata 0xf, columns 3 and 3, do not rise"},
      {"a word of zeros", [](Target& t) { t.set_word(0, 0); }, "is zero"},
      {"negative zero", [](Target& t) { t.set_word(0, 0x80003C00U); }, "value 0x8000 at byte"},
      {"infinity", [](Target& t) { t.set_word(1, 0x3C007C00U); }, "value 0x7c00 at byte"},
      {"not a number", [](Target& t) { t.set_word(1, 0xFE013C00U); }, "is not finite"},
      {"something left without a pair",
       [](Target& t) {
         t.change_head(0, [](auto& head) {
           int lane = 0;
           while ((head.strips[0].pairs[lane] & 1U) != 0) ++lane;
           head.strips[0].left[lane] |= 1U;
         });
       },
       "something is left, but no pair is stored"},
      {"two nonzeros in a column",
       [](Target& t) {
         int lane = 0;
         t.word(0, 0, lane);
         t.change_head(0, [&](auto& head) {
           for (auto& row : head.strips[0].metadata) std::fill_n(row, 4, 0x44444444U);  // columns 0 and 1
           std::fill_n(head.strips[0].left, kPairsLanes, 0U);
           head.strips[0].pairs[lane] = head.strips[0].left[lane] = 1;
           const int at = PairsJump::unpack(head.strips[0].jumps[lane]).offset * kPairsLanes + lane;
           head.strips[0].jumps[lane] = PairsJump{0, 0, at}.pack();
           const std::size_t first = t.unit(0) + head.starts[0] + static_cast<std::size_t>(4 * at);
           t.set(first, 0x3C003C00U);
           t.set(first + kPairsListStride, 0x3C00U);
         });
       },
       "two nonzeros in column"},
      {"row outside the matrix",  // 36 rows in units 2 and 3
       [](Target& t) { t.change_head(2, [](auto& head) { head.strips[3].pairs[0] = 1; }); },
       "unit 2 of 4: the quad at row 48, column 0 (lane 0 of strip 3): "},
      {"column outside the matrix",  // 44 columns in units 1 and 3: quad 11 of the second step is outside
       [](Target& t) {
         t.change_head(1, [](auto& head) {
           std::fill_n(head.strips[0].pairs, kPairsLanes, 0U);
           std::fill_n(head.strips[0].left, kPairsLanes, 0U);
           head.strips[0].pairs[3] = 1U << 4;
           head.strips[0].jumps[3] = PairsJump{1, 0, 0}.pack();
         });
         t.set(t.unit(1) + sizeof(PairsHead), 0x3C00U);
       },
       "unit 1 of 4: the quad at row 0, column 44 (lane 3 of strip 0): a nonzero in column 44 lies outside "
       "the "
       "64 x 44 elements here"},
  };
  return all;
}

TEST(Pairs24Check, RefusesEveryDamage) {
  const Target good{random_matrix(100, 300, 0.7)};
  ASSERT_NO_THROW(good.matrix.check());
  for (const Damage& damage : damages()) {
    SCOPED_TRACE(damage.what);
    Target target = good;
    damage.change(target);
    const Error error = error_of([&] { target.matrix.check(); });
    EXPECT_EQ(error.code(), Code::kCorrupt);
    EXPECT_THAT(error.what(), HasSubstr("tensor decoder.layers.3.fc2.weight: "));
    EXPECT_THAT(error.what(), HasSubstr(damage.message));
    EXPECT_FALSE(error.fix().empty());
  }
}

TEST(Pairs24Check, KnowsTheValuesOfBf16) {
  Target target{random_matrix(100, 300, 0.7, DType::kBF16)};
  target.set_word(0, 0x7C00U);  // finite here
  EXPECT_NO_THROW(target.matrix.check());
  target.set_word(0, 0x7F80U);
  EXPECT_EQ(error_of([&] { target.matrix.check(); }).code(), Code::kCorrupt);
}

/// What check lets pass, expand reads without a fault and the encoder can store again.
TEST(Pairs24Check, LetsNothingPassThatExpandCannotRead) {
  std::mt19937 random(7);
  for (const double sparsity : {0.5, 0.9, 0.99}) {
    const Target good{random_matrix(100, 300, sparsity)};
    int passed = 0;
    for (int i = 0; i < 600; ++i) {
      Target target = good;
      // Two thirds of the changes hit the fixed parts of a unit.
      const std::size_t at = i % 3 == 0
                                 ? random() % target.matrix.bytes.size()
                                 : target.unit(static_cast<std::int64_t>(random() % 4)) + random() % 3344;
      target.matrix.bytes[at] ^= static_cast<std::byte>(1U << (random() % 8));
      try {
        target.matrix.check();
        const auto values = target.matrix.expand();
        EXPECT_EQ(StoredMatrix::encode(kFormat, 100, 300, values).expand(), values);
        ++passed;
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), Code::kCorrupt) << error.what();
      }
    }
    EXPECT_GT(passed, 0);
  }
}

}  // namespace
}  // namespace sluice::kernels
