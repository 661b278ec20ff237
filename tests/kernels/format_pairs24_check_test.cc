// Damaged units of pairs24: each field that check reads, changed.
#include <algorithm>
#include <random>

#include "kernels/format/pairs24/unit.h"
#include "tests/kernels/damaged_matrix.h"

namespace sluice::kernels {
namespace {

using ::sluice::testing::error_of;
using testing::expect_all_refused;
using ::testing::HasSubstr;
using testing::StoredMatrix;

constexpr WeightFormat kPairsF16{Encoding::kPairs24, DType::kF16};

struct Target : testing::DamagedMatrix {
  PairsHead head(std::int64_t index) const { return get<PairsHead>(tile(index)); }
  template <class Change>
  void change_head(std::int64_t index, const Change& change) {
    PairsHead changed = head(index);
    change(changed);
    set(tile(index), changed);
  }
  PairsStart start(std::int64_t index, int strip) const {
    return PairsStart::unpack(head(index).starts[strip]);
  }
  template <class Change>
  void change_start(std::int64_t index, int strip, const Change& change) {
    PairsStart changed = start(index, strip);
    change(changed);
    change_head(index, [&](PairsHead& head) { head.starts[strip] = changed.pack(); });
  }
  template <class Change>
  void change_masks(std::int64_t index, const Change& change) {
    auto masks = get<PairsMasks>(tile(index) + kPairsFixedBytes);
    change(masks);
    set(tile(index) + kPairsFixedBytes, masks);
  }
  std::size_t lists(std::int64_t index, int strip) const {
    return tile(index) + 4 * std::size_t{start(index, strip).word};
  }
  /// The first word of a lane of unit `index` that is a pair of step 0.
  std::size_t word(std::int64_t index, int strip, int& lane) const {
    const PairsHead head = this->head(index);
    const PairsStrip& fixed = head.strips[strip];
    for (lane = 0; lane < kPairsLanes; ++lane) {
      const PairsJump jump = PairsJump::unpack(fixed.jumps[lane]);
      if ((fixed.pairs[lane] & 15U) == 0 || jump.step == 0) continue;
      return lists(index, strip) + static_cast<std::size_t>(4 * lane + jump.offset * kPairsListStride);
    }
    ADD_FAILURE() << "no such lane";
    return tile(index) + sizeof(PairsHead);
  }
  void set_word(std::int64_t index, std::uint32_t value) {
    int lane = 0;
    set(word(index, 0, lane), value);
  }

  std::size_t entries(std::int64_t index, int strip) const {
    std::size_t at = tile(index) + kPairsFixedBytes;
    for (int s = 0; s < strip; ++s) at += 4 * std::size_t{pairs_entry_words(start(index, s).entries)};
    return at;
  }
  /// The last entry of a strip, which must have two.
  std::size_t last_entry(std::int64_t index, int strip) const {
    const std::uint32_t count = start(index, strip).entries;
    EXPECT_GE(count, 2U);
    return entries(index, strip) + 4 * std::size_t{count - 1};
  }
  template <class Change>
  void change_last_entry(std::int64_t index, int strip, const Change& change) {
    const std::size_t at = last_entry(index, strip);
    PairsEntry entry = PairsEntry::unpack(get<std::uint32_t>(at));
    change(entry);
    set(at, entry.pack());
  }
  /// The last entry of strip 0 of unit 0 goes to the first column of a late quad of which `is_it` is true,
  /// given its pair's bit and its metadata.
  template <class IsIt>
  void move_last_entry(const IsIt& is_it) {
    const PairsHead head = this->head(0);
    const PairsStrip& fixed = head.strips[0];
    for (int quad = 7; quad >= 4; --quad) {
      for (int row = kPairsStripRows - 1; row >= 0; --row) {
        const int lane = 4 * (row & 7) + (quad & 3);
        const int reg = (row >> 3) + 2 * (quad >> 2);
        const PairsMetadata at = PairsMetadata::of(7, row, quad);
        if (!is_it((fixed.pairs[lane] >> (28 + reg) & 1U) != 0,
                   fixed.metadata[at.lane][at.word] >> at.bit & 15U))
          continue;
        change_last_entry(0, 0, [&](PairsEntry& entry) { entry = {entry.value, 224 + 4 * quad, row}; });
        return;
      }
    }
    ADD_FAILURE() << "no such quad";
  }
};

using Damages = std::vector<testing::Damage<Target>>;

/// 36 rows in units 2 and 3, 44 columns in units 1 and 3.
Target random_target(double sparsity, DType dtype = DType::kF16) {
  return {{testing::random_stored({Encoding::kPairs24, dtype}, 100, 300, sparsity)}};
}

/// The same of few nonzeros, but for one quad of three in the first two rows of each strip of each unit:
/// units have entries.
Target target_of_entries(DType dtype = DType::kF16) {
  const WeightFormat format{Encoding::kPairs24, dtype};
  std::vector<std::uint16_t> values = testing::random_stored(format, 100, 300, 0.95).expand();
  for (std::size_t row = 0; row < 100; ++row) {
    if (row % kPairsStripRows >= 2) continue;
    for (const std::size_t col : {4, 5, 6, 260, 261, 262}) values[row * 300 + col] = 0x3C00;
  }
  return {{StoredMatrix(format, 100, 300, values)}};
}

const Damages& damages_of_any() {
  static const Damages all = {
      {"cut to nothing", [](Target& t) { t.matrix.bytes.clear(); }, "0 bytes instead of"},
      {"longer", [](Target& t) { t.matrix.bytes.insert(t.matrix.bytes.begin(), 16, std::byte{}); },
       "tiles end at"},
      {"not ascending", [](Target& t) { t.set(t.table() + 8, 0U); }, "tile 1 of 4 covers bytes"},
      {"no room for the fixed parts", [](Target& t) { t.set(t.table() + 4, 176U); },
       "unit 0 of 4: 2816 bytes instead of 2832 to 36112"},
      {"start in the fixed parts",
       [](Target& t) { t.change_start(1, 0, [](auto& start) { start.word = 707; }); },
       "unit 1 of 4: the lists of strip 0 start at byte 2828, which is not between"},
      {"start in what is left", [](Target& t) { t.change_start(1, 0, [](auto& start) { start.word -= 1; }); },
       "unit 1 of 4: the lists of strip 0 start at byte"},
      {"start beyond the unit",
       [](Target& t) { t.change_start(2, 3, [](auto& start) { start.word = 0xFFFF; }); },
       "unit 2 of 4: the lists of strip 3 start at byte 262140, which is not between"},
      {"lists beyond the unit",
       [](Target& t) {
         t.change_start(0, 1, [&](auto& start) {
           start.word = static_cast<std::uint32_t>(t.tile_end(0) - t.tile(0)) / 4;
         });
       },
       "of strip 1): its word at byte"},
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
       "unit 0 of 4: the quad at row "},
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
      {"row outside the matrix",
       [](Target& t) { t.change_head(2, [](auto& head) { head.strips[3].pairs[0] = 1; }); },
       "unit 2 of 4: the quad at row 48, column 0 (lane 0 of strip 3): "},
  };
  return all;
}

/// Unit 0, strip 0 has one pair, (0, 1) of a quad of step 0, and something left in column 0.
void leave_in_column_of_pair(Target& t, std::uint32_t pair) {
  int lane = 0;
  t.word(0, 0, lane);
  t.change_masks(0, [&](auto& masks) {
    std::fill_n(masks.left[0], kPairsLanes, 0U);
    masks.left[0][lane] = 1;
  });
  t.change_head(0, [&](auto& head) {
    for (auto& row : head.strips[0].metadata) std::fill_n(row, 4, 0x44444444U);  // columns 0 and 1
    std::fill_n(head.strips[0].pairs, kPairsLanes, 0U);
    head.strips[0].pairs[lane] = 1;
    head.strips[0].jumps[lane] = PairsJump{0, 0, lane}.pack();
  });
  const std::size_t first = t.lists(0, 0) + static_cast<std::size_t>(4 * lane);
  t.set(first, pair);
  t.set(first + kPairsListStride, 0x3C00U);
}

const Damages& damages_of_masks() {
  static const Damages all = {
      {"masks in strip 0 only",
       [](Target& t) { t.change_start(0, 1, [](auto& start) { start.entries = 0; }); },
       "unit 0 of 4: strip 1 has entries, strip 0 has not"},
      {"masks in other strips only",
       [](Target& t) { t.change_start(0, 0, [](auto& start) { start.entries = 0; }); },
       "unit 0 of 4: strip 1 has masks, strip 0 has not"},
      {"something left without a pair",
       [](Target& t) {
         const PairsHead head = t.head(0);
         int lane = 0;
         while ((head.strips[0].pairs[lane] & 1U) != 0) ++lane;
         t.change_masks(0, [&](auto& masks) { masks.left[0][lane] |= 1U; });
       },
       "something is left, but no pair is stored"},
      {"something left in a column of the pair", [](Target& t) { leave_in_column_of_pair(t, 0x3C003C00U); },
       "something is left in column"},
      {"something left where the pair has a zero", [](Target& t) { leave_in_column_of_pair(t, 0x3C000000U); },
       ", which is the pair's"},
      {"column outside the matrix",  // quad 11 of the second step is outside
       [](Target& t) {
         t.change_masks(1, [](auto& masks) { std::fill_n(masks.left[0], kPairsLanes, 0U); });
         t.change_head(1, [](auto& head) {
           std::fill_n(head.strips[0].pairs, kPairsLanes, 0U);
           head.strips[0].pairs[3] = 1U << 4;
           head.strips[0].jumps[3] = PairsJump{1, 0, 0}.pack();
         });
         t.set(t.lists(1, 0), 0x3C00U);
       },
       "unit 1 of 4: the quad at row 0, column 44 (lane 3 of strip 0): a nonzero in column 44 lies outside "
       "the 64 x 44 elements here"},
  };
  return all;
}

const Damages& damages_of_entries() {
  static const Damages all = {
      {"entries in strip 0 only",
       [](Target& t) { t.change_start(2, 1, [](auto& start) { start.entries = PairsStart::kMasks; }); },
       "unit 2 of 4: strip 1 has masks, strip 0 has not"},
      {"too many entries", [](Target& t) { t.change_start(0, 2, [](auto& start) { start.entries = 33; }); },
       "unit 0 of 4: 33 entries of strip 2, at most 32 are possible"},
      {"upper bits",
       [](Target& t) {
         const std::size_t at = t.entries(0, 1);
         t.set(at, t.get<std::uint32_t>(at) | 0x80000000U);
       },
       "entry 0 of strip 1 at byte"},
      {"entries in another order",
       [](Target& t) {
         const std::size_t at = t.last_entry(0, 0);
         const auto last = t.get<std::uint32_t>(at);
         t.set(at, t.get<std::uint32_t>(at - 4));
         t.set(at - 4, last);
       },
       "comes not behind the entry ahead"},
      {"the same entry twice",
       [](Target& t) {
         const std::size_t at = t.last_entry(0, 3);
         t.set(at, t.get<std::uint32_t>(at - 4));
       },
       "comes not behind the entry ahead"},
      {"zero", [](Target& t) { t.change_last_entry(0, 1, [](auto& entry) { entry.value = 0; }); },
       "value is zero"},
      {"negative zero",
       [](Target& t) { t.change_last_entry(0, 1, [](auto& entry) { entry.value = 0x8000; }); },
       "value 0x8000 at byte"},
      {"infinity", [](Target& t) { t.change_last_entry(2, 0, [](auto& entry) { entry.value = 0xFC00; }); },
       "value 0xfc00 at byte"},
      {"not a number",
       [](Target& t) { t.change_last_entry(2, 0, [](auto& entry) { entry.value = 0x7C01; }); },
       "is not finite"},
      {"row outside the matrix",
       [](Target& t) { t.change_last_entry(2, 2, [](auto& entry) {
                         entry = {entry.value, 252, 15};
                       }); },
       "unit 2 of 4: the quad at row 47, column 252 (lane 31 of strip 2): a nonzero in column 252 lies "
       "outside"},
      {"column outside the matrix",
       [](Target& t) { t.change_last_entry(1, 0, [](auto& entry) {
                         entry = {entry.value, 44, 0};
                       }); },
       "lies outside the 64 x 44 elements here"},
      {"third column of a quad",
       [](Target& t) { t.change_last_entry(0, 0, [](auto& entry) { entry.col |= 2; }); },
       ", the quad's third or fourth"},
      {"no pair", [](Target& t) { t.move_last_entry([](bool is_stored, unsigned) { return !is_stored; }); },
       "something is left, but no pair is stored"},
      {"a column of the pair",
       [](Target& t) {
         t.move_last_entry([](bool is_stored, unsigned places) { return is_stored && (places & 3) == 0; });
       },
       ", which is the pair's"},
      {"filling that is not zero",
       [](Target& t) {
         int strip = 0;
         while (t.start(0, strip).entries % 4 == 0) ++strip;
         t.set(t.last_entry(0, strip) + 4, 0x10000U);
       },
       "is not zero"},
      {"fewer entries",
       [](Target& t) {
         int strip = 0;
         while (t.start(0, strip).entries % 4 < 2) ++strip;
         t.change_start(0, strip, [](auto& start) { --start.entries; });
       },
       "is not zero"},
  };
  return all;
}

bool all_have_masks(const Target& t, bool masks) {
  for (std::int64_t i = 0; i < 4; ++i) {
    if ((t.start(i, 0).entries == PairsStart::kMasks) != masks) return false;
  }
  return true;
}

TEST(Pairs24Check, RefusesEveryDamageOfMasks) {
  const Target good = random_target(0.45);
  ASSERT_TRUE(all_have_masks(good, true));
  expect_all_refused(good, damages_of_any());
  expect_all_refused(good, damages_of_masks());
}

TEST(Pairs24Check, RefusesEveryDamageOfEntries) {
  const Target good = target_of_entries();
  ASSERT_TRUE(all_have_masks(good, false));
  expect_all_refused(good, damages_of_any());
  expect_all_refused(good, damages_of_entries());
}

TEST(Pairs24Check, RefusesWhatIsLeftBehindTheUnit) {
  const std::vector<std::uint16_t> zeros(64 * 256);
  const Target empty{{StoredMatrix(kPairsF16, 64, 256, zeros)}};
  const auto all_strips = [](std::uint32_t entries) {
    return [entries](Target& t) {
      for (int s = 0; s < kPairsStrips; ++s)
        t.change_start(0, s, [&](auto& start) { start.entries = entries; });
    };
  };
  expect_all_refused(
      empty, Damages{{"entries", all_strips(29), "its entries end at byte 3344 of 2832"},
                     {"masks", all_strips(PairsStart::kMasks), "its masks end at byte 3344 of 2832"}});
}

TEST(Pairs24Check, KnowsTheValuesOfBf16) {
  Target target = random_target(0.7, DType::kBF16);
  target.set_word(0, 0x7C00U);  // finite here
  EXPECT_NO_THROW(target.matrix.check());
  target.set_word(0, 0x7F80U);
  EXPECT_EQ(error_of([&] { target.matrix.check(); }).code(), Code::kCorrupt);

  Target sparse = target_of_entries(DType::kBF16);
  sparse.change_last_entry(0, 0, [](auto& entry) { entry.value = 0x7C00; });
  EXPECT_NO_THROW(sparse.matrix.check());
  sparse.change_last_entry(0, 0, [](auto& entry) { entry.value = 0xFF80; });
  EXPECT_THAT(error_of([&] { sparse.matrix.check(); }).what(), HasSubstr("value 0xff80 at byte"));
}

/// What check lets pass, expand reads without a fault and the encoder can store again.
TEST(Pairs24Check, LetsNothingPassThatExpandCannotRead) {
  std::mt19937 random(7);
  for (const double sparsity : {0.5, 0.8, 0.9, 0.99}) {
    const Target good = random_target(sparsity);
    int passed = 0;
    for (int i = 0; i < 600; ++i) {
      Target target = good;
      // Two thirds of the changes hit the fixed parts of a unit, masks or entries.
      const std::size_t at =
          i % 3 == 0 ? random() % target.size()
                     : target.tile(static_cast<std::int64_t>(random() % 4)) +
                           random() % (kPairsFixedBytes + (sparsity < 0.6 ? kPairsMaskBytes : 16));
      target.matrix.bytes[at] ^= static_cast<std::byte>(1U << (random() % 8));
      try {
        target.matrix.check();
        const auto values = target.matrix.expand();
        EXPECT_EQ(StoredMatrix(kPairsF16, 100, 300, values).expand(), values);
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
