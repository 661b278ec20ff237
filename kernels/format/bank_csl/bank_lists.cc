#include "kernels/format/bank_csl/bank_lists.h"

#include <algorithm>
#include <bit>

#include "core/units.h"

namespace sluice::kernels {
namespace {

constexpr int kWordBits = 64;
constexpr int kMaxStep = 16;  // rows from one D4 slot to the next

/// Bit c of entry r becomes bit r of entry c (Warren, Hacker's Delight, section 7-3).
void transpose(std::array<std::uint64_t, kWordBits>& rows) {
  std::uint64_t mask = 0xFFFFFFFFU;
  for (std::size_t step = kWordBits / 2; step != 0; step /= 2, mask ^= mask << step) {
    for (std::size_t i = 0; i < kWordBits; i = ((i | step) + 1) & ~step) {
      const std::uint64_t swap = ((rows[i] >> step) ^ rows[i | step]) & mask;
      rows[i] ^= swap << step;
      rows[i | step] ^= swap;
    }
  }
}

int count(const RowSet& set) {
  int n = 0;
  for (const std::uint64_t word : set) n += std::popcount(word);
  return n;
}

/// Adds the `n` lowest of `from`, which has at least as many, to `set`.
void add_lowest(const RowSet& from, int n, RowSet& set) {
  for (std::size_t w = 0; n > 0; ++w) {
    std::uint64_t left = from[w];
    const int available = std::popcount(left);
    if (available <= n) {
      left = 0;
    } else {
      for (int i = 0; i < n; ++i) left &= left - 1;
    }
    set[w] |= from[w] & ~left;
    n -= std::min(n, available);
  }
}

/// Calls visit(row) for each row in order, until it says false.
template <class Visit>
void for_rows(const RowSet& set, const Visit& visit) {
  for (std::size_t w = 0; w < set.size(); ++w) {
    for (std::uint64_t bits = set[w]; bits != 0; bits &= bits - 1) {
      if (!visit(static_cast<int>(w) * kWordBits + std::countr_zero(bits))) return;
    }
  }
}

/// Of a slot, counted from 1.
std::size_t step_of(int slot) { return static_cast<std::size_t>(slot / kBankSlotStep + 1); }

/// Zeros needed between two nonzeros of a D4 list.
int num_pads(int row_before, int row) { return (row - row_before - 1) / kMaxStep; }

/// Whether 16 neighbouring rows are missing, which dense lists hardly ever have: without them there are no
/// zeros between nonzeros.
bool has_long_gap(const RowSet& nonzeros) {
  RowSet gaps;
  for (std::size_t w = 0; w < gaps.size(); ++w) gaps[w] = ~nonzeros[w];
  for (int length = 1; length < kMaxStep; length *= 2) {  // a bit is left where 2 * length gaps start
    for (std::size_t w = 0; w < gaps.size(); ++w) {
      const std::uint64_t above = w + 1 < gaps.size() ? gaps[w + 1] << (kWordBits - length) : 0;
      gaps[w] &= gaps[w] >> length | above;
    }
  }
  return count(gaps) > 0;
}

/// The first nonzeros that fit `num_slots` D4 slots, and the zeros between them.
RowSet delta_rows(const RowSet& nonzeros, int num_slots) {
  RowSet rows{};
  int used = 0;
  int before = -1;
  for_rows(nonzeros, [&](int row) {
    used += 1 + num_pads(before, row);
    if (used > num_slots) return false;
    for (before += kMaxStep; before < row; before += kMaxStep)
      rows[static_cast<std::size_t>(before / kWordBits)] |= std::uint64_t{1} << (before % kWordBits);
    rows[static_cast<std::size_t>(row / kWordBits)] |= std::uint64_t{1} << (row % kWordBits);
    before = row;
    return true;
  });
  return rows;
}

}  // namespace

void BankLists::load(const SharedTile& tile) {
  for (std::size_t w = 0; w < RowSet{}.size(); ++w) {
    std::array<std::uint64_t, kWordBits> block;
    std::copy_n(tile.nonzeros.data() + w * kWordBits, kWordBits, block.data());
    transpose(block);
    for (std::size_t i = 0; i < block.size(); ++i) lists_[i].nonzeros[w] = block[i];
  }
  delta_ends_.fill(0);
  index_ends_.fill(0);
  num_nonzeros_ = 0;
  for (List& list : lists_) {
    list.count = count(list.nonzeros);
    num_nonzeros_ += list.count;
    const bool by_rows = has_long_gap(list.nonzeros);
    for (int n = 0; n < list.count; n += kBankSlotStep) {
      const int in_step = std::min(kBankSlotStep, list.count - n);
      index_ends_[step_of(n)] += in_step;
      if (!by_rows) delta_ends_[step_of(n)] += in_step;
    }
    list.delta_slots = list.count;
    if (!by_rows) continue;
    int slots = 0;
    int before = -1;
    for_rows(list.nonzeros, [&](int row) {
      slots += num_pads(before, row);
      before = row;
      ++delta_ends_[step_of(slots++)];
      return true;
    });
    list.delta_slots = slots;
  }
}

BankLists::Choice BankLists::choose() const {
  const auto word_bytes = [](int words) { return align_up(4 * words, 16); };
  Choice best;
  std::int64_t best_bytes = word_bytes(num_nonzeros_);
  const auto consider = [&](BankTileKind kind, const auto& ends) {
    int overflow = num_nonzeros_;
    for (std::size_t t = 1; t < ends.size(); ++t) {
      overflow -= ends[t];
      const auto steps = static_cast<std::int64_t>(t);
      const std::int64_t bytes = steps * kBankLists * (16 + bank_index_bytes(kind)) + word_bytes(overflow);
      if (bytes >= best_bytes) continue;
      best_bytes = bytes;
      best = {kind, static_cast<int>(t) * kBankSlotStep};
    }
  };
  consider(BankTileKind::kD4, delta_ends_);
  consider(BankTileKind::kI8, index_ends_);
  return best;
}

RowSet BankLists::slot_rows(int list, Choice choice, RowSet& overflow) const {
  const List& from = lists_[static_cast<std::size_t>(list)];
  RowSet rows{};
  if (choice.kind == BankTileKind::kD4 && from.delta_slots > from.count) {
    rows = delta_rows(from.nonzeros, choice.num_slots);
  } else {  // no gap needs a zero
    add_lowest(from.nonzeros, std::min(choice.num_slots, from.count), rows);
  }
  RowSet zeros;
  for (std::size_t w = 0; w < rows.size(); ++w) {
    overflow[w] = from.nonzeros[w] & ~rows[w];
    zeros[w] = ~(from.nonzeros[w] | rows[w]);
  }
  add_lowest(zeros, choice.num_slots - count(rows), rows);
  return rows;
}

}  // namespace sluice::kernels
