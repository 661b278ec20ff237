// Damaged matrices in the sparse formats: each field that check reads, changed.
#include <random>

#include "kernels/format/bank_csl/bank_csl.h"
#include "tests/kernels/damaged_matrix.h"

namespace sluice::kernels {
namespace {

using ::sluice::testing::error_of;
using testing::StoredMatrix;

struct Target : testing::DamagedMatrix {
  BankTileHeader header(std::int64_t index) const { return get<BankTileHeader>(tile(index)); }
  template <class Change>
  void change_header(std::int64_t index, const Change& change) {
    BankTileHeader header = this->header(index);
    change(header);
    set(tile(index), header);
  }
  /// The first byte of the D4 or I8 indices of tile `index`.
  std::size_t indices(std::int64_t index) const { return tile(index) + 16 + header(index).num_slots * 128U; }
  std::size_t overflow(std::int64_t index) const {
    const auto bytes = static_cast<std::size_t>(bank_index_bytes(header(index).kind));
    return indices(index) + header(index).num_slots * 8U * bytes;
  }
  /// A value of tile `index` that is a nonzero, or a zero.
  std::size_t slot(std::int64_t index, bool nonzero) const {
    for (std::size_t at = tile(index) + 16; at < indices(index); at += 2) {
      if ((get<std::uint16_t>(at) != 0) == nonzero) return at;
    }
    ADD_FAILURE() << "no such slot";
    return tile(index) + 16;
  }
};

using Damage = testing::Damage<Target>;

Target random_target(WeightFormat format, std::int64_t rows, std::int64_t cols, double sparsity) {
  return {{testing::random_stored(format, rows, cols, sparsity)}};
}

void expect_all_refused(const Target& good, const std::vector<Damage>& damages) {
  testing::expect_all_refused(good, damages);
}

const std::vector<Damage>& table_damages() {
  static const std::vector<Damage> damages = {
      {"cut to nothing", [](Target& t) { t.matrix.bytes.clear(); }, "0 bytes instead of"},
      {"cut", [](Target& t) { t.matrix.bytes.resize(t.size() - 16); }, "tile"},
      {"longer", [](Target& t) { t.matrix.bytes.insert(t.matrix.bytes.begin(), 16, std::byte{}); },
       "tiles end at"},
      {"far too long", [](Target& t) { t.matrix.bytes.resize(1 << 20); }, "1048576 bytes instead of"},
      {"first start", [](Target& t) { t.set(t.table(), 1U); }, "tile 0 starts at byte 16"},
      {"not ascending", [](Target& t) { t.set(t.table() + 8, 0U); }, "tile 1 of 4 covers bytes"},
      {"beyond", [](Target& t) { t.set(t.table() + 4, 0xFFFFFFFFU); }, "tile 0 of 4 covers bytes"},
  };
  return damages;
}

void set_value(Target& target, std::size_t word, std::uint16_t value) { target.set(word, value); }
void set_offset(Target& target, std::size_t word, int offset) {
  target.set(word + 2, static_cast<std::uint16_t>(offset));
}
/// The first word of tile `index` of a tiled_csl matrix that is no padding.
std::size_t first_word(const Target& target, std::int64_t index) {
  std::size_t at = target.tile(index);
  while (target.get<std::uint16_t>(at) == 0) at += 4;
  return at;
}

TEST(TiledCslCheck, RefusesEveryDamage) {
  const Target good = random_target({Encoding::kTiledCsl, DType::kF16}, 200, 100, 0.9);
  expect_all_refused(good, table_damages());
  expect_all_refused(
      good,
      {
          {"odd offset", [](Target& t) { set_offset(t, t.tile(1), 7); },
           "tile 1 of 4: byte offset 7 is none of an element"},
          {"offset beyond the tile", [](Target& t) { set_offset(t, t.tile(2), 16384); },
           "tile 2 of 4: byte offset 16384 is none of an element of its 128 rows"},
          {"row outside the matrix", [](Target& t) { set_offset(t, first_word(t, 2), 72 * 128); },
           "tile 2 of 4: the nonzero at byte offset 9216 (row 72, column 0 of the tile) lies outside"},
          {"column outside the matrix",
           [](Target& t) { set_offset(t, first_word(t, 1), 128 + 2 * (36 ^ 8)); },
           "(row 1, column 36 of the tile) lies outside the 200 x 100 matrix"},
          {"infinity", [](Target& t) { set_value(t, first_word(t, 3), 0x7C00); },
           "tile 3 of 4: value 0x7c00 at byte offset"},
          {"not a number", [](Target& t) { set_value(t, first_word(t, 0), 0xFE01); }, "is not finite"},
          {"negative zero", [](Target& t) { set_value(t, first_word(t, 0), 0x8000); }, "a negative zero"},
          {"two nonzeros at one place",
           [](Target& t) {
             t.set(t.tile(0) + 4, t.get<std::uint16_t>(t.tile(0) + 6) << 16 | 0x3C00U);
             t.set(t.tile(0), t.get<std::uint16_t>(t.tile(0) + 6) << 16 | 0x3C01U);
           },
           "tile 0 of 4: two nonzeros at byte offset"},
          {"a zero where a nonzero is",
           [](Target& t) {
             const std::size_t word = first_word(t, 0);
             const std::size_t other = word + 4;
             t.set(word, t.get<std::uint16_t>(other + 2) << 16);
           },
           "tile 0 of 4: a zero and a nonzero at byte offset"},
          {"too much padding",
           [](Target& t) {
             for (std::size_t i = 0; i < 4; ++i) set_value(t, t.tile(0) + 4 * i, 0);
           },
           "words are zeros, at most 3 are needed"},
      });
}

TEST(TiledCslCheck, KnowsTheValuesOfBf16) {
  Target target = random_target({Encoding::kTiledCsl, DType::kBF16}, 200, 100, 0.9);
  set_value(target, first_word(target, 0), 0x7C00);  // finite here
  EXPECT_NO_THROW(target.matrix.check());
  set_value(target, first_word(target, 0), 0x7F80);
  EXPECT_EQ(error_of([&] { target.matrix.check(); }).code(), Code::kCorrupt);
}

/// Of list 0 of tile 0.
int first_slot_row(const Target& t) {
  const auto index = t.get<std::uint8_t>(t.indices(0));
  return t.header(0).kind == BankTileKind::kD4 ? index & 15 : index;
}

const std::vector<Damage>& header_damages() {
  static const std::vector<Damage> damages = {
      {"kind", [](Target& t) { t.set(t.tile(1), std::uint8_t{3}); }, "tile 1 of 4: kind 3 is unknown"},
      {"kind without slots", [](Target& t) { t.set(t.tile(1), std::uint8_t{0}); },
       "slots in a tile of kind 0"},
      {"reserved", [](Target& t) { t.set(t.tile(2) + 1, std::uint8_t{1}); },
       "tile 2 of 4: reserved bytes are 1 and 0"},
      {"reserved2", [](Target& t) { t.set(t.tile(2) + 6, std::uint16_t{9}); }, "reserved bytes are 0 and 9"},
      {"slots not in eights", [](Target& t) { t.change_header(0, [](auto& h) { h.num_slots += 4; }); },
       "tile 0 of 4: "},
      {"slots beyond 256", [](Target& t) { t.change_header(0, [](auto& h) { h.num_slots = 264; }); },
       "264 slots in a tile"},
      {"no slots", [](Target& t) { t.change_header(0, [](auto& h) { h.num_slots = 0; }); },
       "0 slots in a tile"},
      {"more slots", [](Target& t) { t.change_header(0, [](auto& h) { h.num_slots += 8; }); },
       "the header says"},
      {"overflow not in vectors", [](Target& t) { t.change_header(3, [](auto& h) { ++h.overflow_words; }); },
       "tile 3 of 4: "},
      {"less overflow", [](Target& t) { t.change_header(3, [](auto& h) { h.overflow_words -= 4; }); },
       "overflow words take"},
      {"size", [](Target& t) { t.change_header(3, [](auto& h) { h.units += 1; }); }, "the header says"},
      {"next size", [](Target& t) { t.change_header(0, [](auto& h) { h.next_units -= 1; }); },
       "tile 0 of 4: the next tile has"},
      {"next size of the last", [](Target& t) { t.change_header(1, [](auto& h) { h.next_units = 1; }); },
       "tile 1 of 4: the next tile has 0 bytes, the header says 16"},
      {"no room for a header", [](Target& t) { t.set(t.table() + 4, t.get<std::uint32_t>(t.table() + 8)); },
       "tile 0 of 4: "},
      {"infinity", [](Target& t) { t.set(t.slot(1, true), std::uint16_t{0x7C00}); },
       "tile 1 of 4: value 0x7c00 at"},
      {"negative zero", [](Target& t) { t.set(t.slot(2, false), std::uint16_t{0x8000}); }, "a negative zero"},
      {"a word over a slot",
       [](Target& t) {
         const int row = first_slot_row(t);
         set_offset(t, t.overflow(0), row * 128);
         set_value(t, t.overflow(0), 0x3C00);
         t.set(t.tile(0) + 16, std::uint16_t{0x3C00});
       },
       "tile 0 of 4: two nonzeros at byte offset"},
      {"a zero over a slot",
       [](Target& t) {
         const int row = first_slot_row(t);
         std::size_t word = t.overflow(0);  // a pad if there is one, as there may be three
         for (std::size_t at = word; at < t.tile(1); at += 4) {
           if (t.get<std::uint16_t>(at) == 0) word = at;
         }
         set_offset(t, word, row * 128);
         set_value(t, word, 0);
         t.set(t.tile(0) + 16, std::uint16_t{0x3C00});
       },
       "tile 0 of 4: a zero and a nonzero at byte offset"},
      {"overflow offset", [](Target& t) { set_offset(t, t.overflow(0), 32768); },
       "byte offset 32768 is none"},
      {"odd overflow offset", [](Target& t) { set_offset(t, t.overflow(0), 32767); },
       "byte offset 32767 is none"},
      {"overflow padding",
       [](Target& t) {
         for (std::size_t i = 0; i < 4; ++i) set_value(t, t.overflow(0) + 4 * i, 0);
       },
       "words are zeros, at most 3"},
  };
  return damages;
}

TEST(BankCslCheck, RefusesEveryDamageOfD4) {
  const Target good = random_target({Encoding::kBankCsl, DType::kF16}, 400, 100, 0.7);
  ASSERT_EQ(good.header(0).kind, BankTileKind::kD4);
  expect_all_refused(good, table_damages());
  expect_all_refused(good, header_damages());
  expect_all_refused(good,
                     {{"rows beyond the tile",
                       [](Target& t) {
                         for (std::size_t i = 0; i < t.header(0).num_slots / 8U; ++i)
                           t.set(t.indices(0) + i * 256 + 4 * 63, 0xFFFFFFFFU);
                       },
                       "tile 0 of 4: list 63 goes to row 2"},
                      {"row outside the matrix",  // 144 rows in tile 2; some list goes on to its last slots
                       [](Target& t) {
                         const std::size_t last = t.header(2).num_slots / 8U - 1;
                         t.set(t.tile(2) + 16 + last * 1024 + 14, std::uint16_t{0x3C00});
                         t.set(t.indices(2) + last * 256,
                               0xFFFF0000U | t.get<std::uint16_t>(t.indices(2) + last * 256));
                       },
                       "tile 2 of 4: the nonzero at byte offset"},
                      {"column outside the matrix",  // a list whose first slot is a zero in row 0
                       [](Target& t) {
                         std::size_t list = 36;
                         while ((t.get<std::uint8_t>(t.indices(1) + 4 * list) & 15) != 0) ++list;
                         t.set(t.tile(1) + 16 + 16 * list, std::uint16_t{0x3C00});
                       },
                       "lies outside the 400 x 100 matrix"}});
}

TEST(BankCslCheck, RefusesEveryDamageOfI8) {
  // Few enough for absolute rows, and a full list so that there is overflow.
  testing::WeightCase c{"random", 512, 128, testing::Mask::kRandom, 0.92};
  auto values = make_weights(c, DType::kF16);
  for (std::int64_t r = 0; r < c.rows; ++r) values[static_cast<std::size_t>(r * c.cols)] = 0x3C00;
  const Target good{{StoredMatrix({Encoding::kBankCsl, DType::kF16}, c.rows, c.cols, values)}};
  ASSERT_EQ(good.header(0).kind, BankTileKind::kI8);
  expect_all_refused(good, header_damages());
  expect_all_refused(good, {{"one row twice",
                             [](Target& t) {
                               const auto row = t.get<std::uint8_t>(t.indices(0));
                               t.set(t.indices(0) + 1, row);
                               t.set(t.tile(0) + 16, std::uint16_t{0x3C00});
                               t.set(t.tile(0) + 18, std::uint16_t{0x3C01});
                             },
                             "two nonzeros at byte offset"}});
}

/// Any bytes are refused or can be read: what check lets pass, expand reads without a fault.
TEST(CslCheck, LetsNothingPassThatExpandCannotRead) {
  std::mt19937 random(7);
  for (const Encoding encoding : {Encoding::kTiledCsl, Encoding::kBankCsl}) {
    for (const double sparsity : {0.5, 0.9, 0.99}) {
      const Target good = random_target({encoding, DType::kF16}, 300, 70, sparsity);
      for (int i = 0; i < 300; ++i) {
        Target target = good;
        // Half of the changes hit a header, a first word or the table.
        const std::size_t at = i % 2 == 0 ? random() % target.size()
                               : i % 4 == 1
                                   ? target.tile(static_cast<std::int64_t>(random() % 4)) + random() % 16
                                   : target.table() + random() % 16;
        target.matrix.bytes[at] ^= static_cast<std::byte>(1U << (random() % 8));
        try {
          target.matrix.check();
          target.matrix.expand();
        } catch (const Error& error) {
          EXPECT_EQ(error.code(), Code::kCorrupt) << error.what();
        }
      }
    }
  }
}

}  // namespace
}  // namespace sluice::kernels
