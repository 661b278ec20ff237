// A matrix of pairs24 whose strips have as many entries as readers must take, twice those that our encoder
// makes (kernels/format/pairs24/FORMAT.md, "Bytes").
#pragma once

#include <algorithm>
#include <cstring>
#include <span>
#include <vector>

#include <gtest/gtest.h>

#include "core/units.h"
#include "kernels/format/format.h"
#include "kernels/format/pairs24/unit.h"
#include "kernels/format/tile_table.h"

namespace sluice::kernels::testing {

/// Pairs in columns 2 and 3 of all quads, and in most strips 17 to 32 entries, in some fewer or none.
struct ManyEntries {
  static constexpr std::int64_t kRows = 3 * kPairsTileRows, kCols = 3 * kPairsTileCols;

  TensorSpec tensor{"decoder.layers.0.fc1.weight", 1, kRows, kCols, false, SplitRule::kRows};
  WeightFormat format;
  std::vector<std::uint16_t> values;
  std::vector<std::byte> stored;

  explicit ManyEntries(DType dtype) : format{Encoding::kPairs24, dtype} {
    // What the encoder stores as entries, which leaves room for more of them.
    values = with_entries(kPairsMaxEntries / 2);
    const std::vector<std::byte> encoded = encode_matrix(tensor, format, values);
    values = with_entries(kPairsMaxEntries);
    const TileTable table({format, encoded, kRows, kCols});
    TileSizes sizes;
    for (std::int64_t u = 0; u < table.num_tiles(); ++u) {
      const std::size_t start = stored.size();
      store_unit(u, table.tile(u));
      sizes.push_back(static_cast<std::uint32_t>((stored.size() - start) / kTileAlign));
    }
    append(encode_tile_table(sizes, tensor.name));
  }

  WeightView view() const { return {format, stored, kRows, kCols}; }

 private:
  void append(std::span<const std::byte> bytes) { stored.insert(stored.end(), bytes.begin(), bytes.end()); }

  /// Of a strip, by its number among those of all units.
  static int num_entries(std::int64_t strip) {
    return static_cast<int>(strip % 5 == 4 ? strip % 17 : 17 + strip % 16);
  }
  /// Four of a strip are what is left of two of its quads; they ascend as they are stored.
  static PairsEntry place(std::int64_t strip, int i) {
    const int four = i / 4;
    const auto number = static_cast<int>(strip);
    return {.value = 0,
            .col = four * kPairsStepCols + number % 8 * kPairsQuadCols + i % 4 / 2,
            .row = i % 2 == 0 ? (number + four) % 8 : 8 + (3 * number + four) % 8};
  }
  static std::size_t element(std::int64_t strip, int row, int col) {
    const std::int64_t unit = strip / kPairsStrips;
    const std::int64_t r =
        unit / (kCols / kPairsTileCols) * kPairsTileRows + strip % kPairsStrips * kPairsStripRows + row;
    return static_cast<std::size_t>(r * kCols + unit % (kCols / kPairsTileCols) * kPairsTileCols + col);
  }
  /// Finite in both types, and no zero.
  static std::uint16_t value(std::size_t element) {
    return static_cast<std::uint16_t>(0x3C00 + element * 37 % 1024 + element / 3 % 2 * 0x8000);
  }

  /// At most `most` of each strip's entries.
  static std::vector<std::uint16_t> with_entries(int most) {
    std::vector<std::uint16_t> values(static_cast<std::size_t>(kRows * kCols));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = i % kPairsQuadCols >= 2 ? value(i) : 0;
    const std::int64_t strips = num_tiles(Encoding::kPairs24, kRows, kCols) * kPairsStrips;
    for (std::int64_t strip = 0; strip < strips; ++strip) {
      for (int i = 0; i < std::min(most, num_entries(strip)); ++i) {
        const PairsEntry entry = place(strip, i);
        const std::size_t at = element(strip, entry.row, entry.col);
        values[at] = value(at);
      }
    }
    return values;
  }

  /// Puts a unit of `from` behind those of `stored`, with all entries in place of its own.
  void store_unit(std::int64_t unit, std::span<const std::byte> from) {
    PairsHead head;
    std::memcpy(&head, from.data(), sizeof(head));
    ASSERT_EQ(head.left(), PairsLeft::kEntries);
    std::vector<std::uint32_t> entries;
    for (int s = 0; s < kPairsStrips; ++s) {
      const std::int64_t strip = unit * kPairsStrips + s;
      for (int i = 0; i < num_entries(strip); ++i) {
        PairsEntry entry = place(strip, i);
        entry.value = values[element(strip, entry.row, entry.col)];
        entries.push_back(entry.pack());
      }
      entries.resize(static_cast<std::size_t>(align_up(std::ssize(entries), kPairsEntryGroup)));
    }
    const auto lists = static_cast<std::uint32_t>(head.lists_begin() - kPairsFixedBytes) / 4;  // words
    for (int s = 0; s < kPairsStrips; ++s) {
      const std::uint32_t word = head.start(s).word - lists + static_cast<std::uint32_t>(entries.size());
      head.starts[s] =
          PairsStart{word, static_cast<std::uint32_t>(num_entries(unit * kPairsStrips + s))}.pack();
    }
    append(std::as_bytes(std::span(&head, 1)));
    append(std::as_bytes(std::span(entries)));
    append(from.subspan(sizeof(head) + std::size_t{lists} * 4));
  }
};

/// The weight is good, has no masks, and most of its strips have more entries than the encoder makes: 17, 32,
/// and numbers between.
inline void expect_many_entries(const WeightView& weight) {
  ASSERT_NO_THROW(codec_of(Encoding::kPairs24).check(weight, "many entries"));
  std::vector<std::uint32_t> counts;
  const TileTable table(weight);
  for (std::int64_t u = 0; u < table.num_tiles(); ++u) {
    PairsHead head;
    std::memcpy(&head, table.tile(u).data(), sizeof(head));
    ASSERT_EQ(head.left(), PairsLeft::kEntries);
    for (int s = 0; s < kPairsStrips; ++s) counts.push_back(head.start(s).entries);
  }
  for (const std::uint32_t count : {17U, 24U, 25U, 31U, 32U})
    EXPECT_NE(std::ranges::count(counts, count), 0) << count << " entries";
  EXPECT_GT(2 * std::ranges::count_if(counts, [](std::uint32_t n) { return n > 16; }), std::ssize(counts));
}

}  // namespace sluice::kernels::testing
