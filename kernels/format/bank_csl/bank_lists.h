// The 64 lists of a bank_csl tile on their way into slots: how a tile is stored best, and which rows the
// slots of a list stand for. FORMAT.md, "Choice" and "Slots". Not thread-safe.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/format/bank_csl/bank_csl.h"
#include "kernels/format/tiled_csl/shared_tile.h"

namespace sluice::kernels {

inline constexpr int kBankLists = kSharedCols, kBankSlotStep = 8, kBankMaxSlots = 256;

/// Bit r % 64 of entry r / 64: row r of a tile.
using RowSet = std::array<std::uint64_t, 4>;

class BankLists {
 public:
  struct Choice {
    BankTileKind kind = BankTileKind::kCsl;
    int num_slots = 0;
  };

  /// Takes the nonzeros of the tile.
  void load(const SharedTile& tile);
  /// What needs the fewest bytes.
  Choice choose() const;
  /// The rows that the slots of `list` stand for, num_slots of them (0 or a multiple of 8), and the nonzeros
  /// that find no slot.
  RowSet slot_rows(int list, Choice choice, RowSet& overflow) const;

 private:
  struct List {
    RowSet nonzeros{};
    int count = 0;        ///< of them
    int delta_slots = 0;  ///< slots for all of them as D4
  };

  std::array<List, kBankLists> lists_;
  /// Entry t: nonzeros whose slot is number 8 t - 8 up to 8 t - 1 of their list, as D4 and as I8.
  std::array<int, kBankMaxSlots / kBankSlotStep + 1> delta_ends_{}, index_ends_{};
  int num_nonzeros_ = 0;
};

}  // namespace sluice::kernels
