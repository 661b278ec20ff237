#include "kernels/format/bank_csl/bank_csl.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>
#include <memory>

#include "core/error.h"
#include "core/units.h"
#include "kernels/format/bank_csl/bank_lists.h"
#include "kernels/format/tile_table.h"
#include "kernels/format/tiled_csl/tile_check.h"
#include "kernels/format/tiled_csl/word_list.h"

namespace sluice::kernels {
namespace {

constexpr int kRows = kBankTileRows;
constexpr std::int64_t kHeaderBytes = sizeof(BankTileHeader);
constexpr std::int64_t kValueBytes = 2 * kBankSlotStep;  // of 8 slots of one list

/// Where the parts of a tile are, in bytes from its start.
struct Layout {
  explicit Layout(const BankTileHeader& header)
      : index_bytes(bank_index_bytes(header.kind)),
        steps(header.num_slots / kBankSlotStep),
        indices(kHeaderBytes + steps * kBankLists * kValueBytes),
        overflow(indices + steps * kBankLists * index_bytes),
        end(overflow + header.overflow_words * std::int64_t{sizeof(std::uint32_t)}) {}

  /// The values and the indices of 8 slots.
  std::int64_t values_at(std::int64_t step, int list) const {
    return kHeaderBytes + (step * kBankLists + list) * kValueBytes;
  }
  std::int64_t indices_at(std::int64_t step, int list) const {
    return indices + (step * kBankLists + list) * index_bytes;
  }

  std::int64_t index_bytes, steps, indices, overflow, end;
};

BankTileHeader header_of(std::span<const std::byte> tile) {
  BankTileHeader header;
  std::memcpy(&header, tile.data(), sizeof(header));
  return header;
}

/// Calls visit(row, value) for each slot of a list, in order. The rows of a tile that was not checked may be
/// 256 and more.
template <class Visit>
void for_slots(std::span<const std::byte> tile, BankTileKind kind, const Layout& layout, int list,
               const Visit& visit) {
  int row = -1;
  for (std::int64_t step = 0; step < layout.steps; ++step) {
    std::array<std::uint16_t, kBankSlotStep> values;
    std::uint64_t indices = 0;
    std::memcpy(values.data(), tile.data() + layout.values_at(step, list), sizeof(values));
    std::memcpy(&indices, tile.data() + layout.indices_at(step, list),
                static_cast<std::size_t>(layout.index_bytes));
    for (const std::uint16_t value : values) {
      if (kind == BankTileKind::kD4) {
        row += 1 + static_cast<int>(indices & 15U);
        indices >>= 4;
      } else {
        row = static_cast<int>(indices & 255U);
        indices >>= 8;
      }
      visit(row, value);
    }
  }
}

/// Writes the slots of one list, which stand for the rows of `set`.
void write_list(const SharedTile& tile, int list, const RowSet& set, BankTileKind kind, const Layout& layout,
                std::byte* out) {
  std::array<std::uint8_t, kBankMaxSlots> rows;
  std::size_t n = 0;
  for (std::size_t w = 0; w < set.size(); ++w) {
    for (std::uint64_t bits = set[w]; bits != 0; bits &= bits - 1)
      rows[n++] = static_cast<std::uint8_t>(w * 64 + static_cast<std::size_t>(std::countr_zero(bits)));
  }
  const std::uint16_t* column = tile.values.data() + list;
  int before = -1;
  for (std::int64_t step = 0; step < layout.steps; ++step) {
    const std::uint8_t* eight = rows.data() + step * kBankSlotStep;
    std::array<std::uint16_t, kBankSlotStep> values;
    std::uint64_t indices = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const int row = eight[i];
      values[i] = column[row * kSharedCols];
      if (kind == BankTileKind::kD4) {
        indices |= static_cast<std::uint64_t>(row - before - 1) << (4 * i);
      } else {
        indices |= static_cast<std::uint64_t>(row) << (8 * i);
      }
      before = row;
    }
    std::memcpy(out + layout.values_at(step, list), values.data(), sizeof(values));
    std::memcpy(out + layout.indices_at(step, list), &indices, static_cast<std::size_t>(layout.index_bytes));
  }
}

/// The words of the nonzeros of one list that found no slot.
void list_overflow(const SharedTile& tile, int list, const RowSet& set, WordList& words) {
  for (std::size_t w = 0; w < set.size(); ++w) {
    for (std::uint64_t bits = set[w]; bits != 0; bits &= bits - 1) {
      const int place = (static_cast<int>(w) * 64 + std::countr_zero(bits)) * kSharedCols + list;
      words.add(place, tile.values[static_cast<std::size_t>(place)]);
    }
  }
}

struct Scratch {
  SharedTile tile;
  BankLists lists;
  WordList words;
};

/// Writes all but the header and returns it, with next_units 0.
BankTileHeader encode_tile(Scratch& scratch, std::byte* out) {
  scratch.lists.load(scratch.tile);
  scratch.words.clear();
  const BankLists::Choice choice = scratch.lists.choose();
  BankTileHeader header{.kind = choice.kind, .num_slots = static_cast<std::uint16_t>(choice.num_slots)};
  const Layout slots(header);
  for (int list = 0; list < kBankLists; ++list) {
    RowSet overflow;
    const RowSet rows = scratch.lists.slot_rows(list, choice, overflow);
    write_list(scratch.tile, list, rows, choice.kind, slots, out);
    list_overflow(scratch.tile, list, overflow, scratch.words);
  }
  scratch.words.pad(scratch.tile.nonzeros);
  header.overflow_words = static_cast<std::uint16_t>(scratch.words.num_words());
  header.units = static_cast<std::uint32_t>(Layout(header).end / kTileAlign);
  scratch.words.write(out + slots.overflow);
  return header;
}

void check_header(const TileCheck& check, std::span<const std::byte> tile, std::int64_t next_bytes) {
  const auto bytes = static_cast<std::int64_t>(tile.size());
  if (bytes < kHeaderBytes) check.refuse(fmt::format("{} bytes hold no header of {}", bytes, kHeaderBytes));
  const BankTileHeader header = header_of(tile);
  const auto kind = static_cast<int>(header.kind);
  if (kind > static_cast<int>(BankTileKind::kI8)) check.refuse(fmt::format("kind {} is unknown", kind));
  if (header.reserved != 0 || header.reserved2 != 0)
    check.refuse(fmt::format("reserved bytes are {} and {}", header.reserved, header.reserved2));
  if (header.num_slots % kBankSlotStep != 0 || header.num_slots > kBankMaxSlots ||
      (header.num_slots == 0) != (header.kind == BankTileKind::kCsl)) {
    check.refuse(fmt::format("{} slots in a tile of kind {}", header.num_slots, kind));
  }
  if (header.overflow_words % kVectorWords != 0)
    check.refuse(fmt::format("{} overflow words are no whole vectors", header.overflow_words));
  if (header.units * kTileAlign != bytes || Layout(header).end != bytes) {
    check.refuse(fmt::format("{} slots and {} overflow words take {} bytes; the header says {}, the table {}",
                             header.num_slots, header.overflow_words, Layout(header).end,
                             header.units * kTileAlign, bytes));
  }
  if (header.next_units * kTileAlign != next_bytes) {
    check.refuse(fmt::format("the next tile has {} bytes, the header says {}", next_bytes,
                             header.next_units * kTileAlign));
  }
}

}  // namespace

std::int64_t bank_csl_row_granule(std::int64_t) { return kRows; }

std::int64_t bank_csl_max_run_bytes(std::int64_t num_rows, std::int64_t cols) {
  return weight_byte_range({Encoding::kBankCsl, DType::kF16}, num_rows, cols).max -
         tile_table_bytes(num_tiles(Encoding::kBankCsl, num_rows, cols));
}

std::int64_t encode_bank_csl(const RowRun& run, std::span<std::byte> out, TileSizes& sizes) {
  const std::int64_t cols = run.tensor->cols;
  SLUICE_ASSERT(run.first_row % kRows == 0);
  SLUICE_ASSERT(static_cast<std::int64_t>(run.values.size()) == run.num_rows * cols);
  SLUICE_ASSERT(static_cast<std::int64_t>(out.size()) >= bank_csl_max_run_bytes(run.num_rows, cols));
  const auto scratch = std::make_unique<Scratch>();
  std::byte* to = out.data();
  for (std::int64_t r = 0; r < run.num_rows; r += kRows) {
    std::byte* before = nullptr;  // the tile to the left
    for (std::int64_t c = 0; c < cols; c += kSharedCols) {
      load_shared_tile(run.values.data() + r * cols + c, cols, tile_part(run.num_rows, r, kRows),
                       tile_part(cols, c, kSharedCols), kRows, scratch->tile);
      const BankTileHeader header = encode_tile(*scratch, to);
      std::memcpy(to, &header, sizeof(header));
      if (before != nullptr)
        std::memcpy(before + offsetof(BankTileHeader, next_units), &header.units, sizeof(header.units));
      sizes.push_back(header.units);
      before = to;
      to += header.units * kTileAlign;
    }
  }
  return to - out.data();
}

void check_bank_csl(const WeightView& weight, const std::string& tensor_name) {
  const TileTable table = checked_tiles(weight, tensor_name);
  TileCheck check(weight.rows, weight.cols, kRows, weight.format.dtype, tensor_name, kDamagedStore);
  const std::int64_t per_block = div_up(weight.cols, kSharedCols);
  for (std::int64_t i = 0; i < table.num_tiles(); ++i) {
    const std::span<const std::byte> tile = table.tile(i);
    check.start(i);
    check_header(check, tile,
                 (i + 1) % per_block == 0 ? 0 : static_cast<std::int64_t>(table.tile(i + 1).size()));
    const BankTileHeader header = header_of(tile);
    const Layout layout(header);
    for (int list = 0; list < kBankLists; ++list) {
      for_slots(tile, header.kind, layout, list, [&](int row, std::uint16_t value) {
        if (row >= kRows) check.refuse(fmt::format("list {} goes to row {} of {}", list, row, kRows));
        check.write(static_cast<std::uint32_t>(2 * (row * kSharedCols + list)), value);
      });
    }
    check.write_words(tile.subspan(static_cast<std::size_t>(layout.overflow)));
    check.finish();
  }
}

void expand_bank_csl(const WeightView& weight, std::int64_t first_row, std::int64_t num_rows,
                     std::span<std::uint16_t> out) {
  SLUICE_ASSERT(first_row % kRows == 0);
  SLUICE_ASSERT(static_cast<std::int64_t>(out.size()) == num_rows * weight.cols);
  const TileTable table(weight);
  const auto shared = std::make_unique_for_overwrite<SharedTile>();
  std::int64_t index = first_row / kRows * div_up(weight.cols, kSharedCols);
  for (std::int64_t r = 0; r < num_rows; r += kRows) {
    for (std::int64_t c = 0; c < weight.cols; c += kSharedCols, ++index) {
      const std::span<const std::byte> tile = table.tile(index);
      const BankTileHeader header = header_of(tile);
      const Layout layout(header);
      shared->values.fill(0);
      for (int list = 0; list < kBankLists; ++list) {
        for_slots(tile, header.kind, layout, list, [&](int row, std::uint16_t value) {
          shared->values[static_cast<std::size_t>(row * kSharedCols + list)] = value;
        });
      }
      scatter_words(tile.subspan(static_cast<std::size_t>(layout.overflow)), *shared);
      store_shared_tile(*shared, tile_part(num_rows, r, kRows), tile_part(weight.cols, c, kSharedCols),
                        out.data() + r * weight.cols + c, weight.cols);
    }
  }
}

}  // namespace sluice::kernels
