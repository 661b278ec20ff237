#include "kernels/format/pairs24/unit_entries.h"

#include <cstring>

namespace sluice::kernels {

bool StripEntries::finish() {
  // A key orders entries by column and row.
  std::array<std::int32_t, 2 * kPairsChosenEntries + 1> keys;
  std::size_t count = 0;
  for (std::uint32_t i = 0; i < num_quads_; ++i) {
    const auto place = static_cast<int>(quads_[i].place);
    const int reg = place % kPairsRegisters;
    const int step = place / kPairsRegisters % kPairsSteps;
    const int lane = place / kPairsRegisters / kPairsSteps;
    const int col = step * kPairsStepCols + pairs_quad(lane, reg) * kPairsQuadCols;
    for (const int half : {0, 1}) {
      const auto value = static_cast<std::uint16_t>(quads_[i].left >> (16 * half));
      keys[count] = (col + half) << 20 | pairs_row(lane, reg) << 16 | value;
      count += value != 0 ? 1 : 0;
    }
  }
  if (count > kPairsChosenEntries) return false;
  // Few enough to count for each how many come ahead of it, without a branch that nobody can predict.
  for (std::size_t i = 0; i < count; ++i) {
    const std::int32_t key = keys[i];
    std::int32_t ahead = 0;
    for (std::size_t j = 0; j < count; ++j) ahead += keys[j] < key ? 1 : 0;
    entries_[static_cast<std::size_t>(ahead)] =
        PairsEntry{static_cast<std::uint16_t>(key & 0xFFFF), key >> 20, key >> 16 & 15}.pack();
  }
  count_ = static_cast<std::uint32_t>(count);
  return true;
}

std::byte* StripEntries::write(std::byte* out) const {
  const std::size_t bytes = count_ * sizeof(entries_[0]);
  const std::size_t room = pairs_entry_words(count_) * sizeof(entries_[0]);
  std::memcpy(out, entries_.data(), bytes);
  std::memset(out + bytes, 0, room - bytes);
  return out + room;
}

}  // namespace sluice::kernels
