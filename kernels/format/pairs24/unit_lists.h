// Where the lists of a unit of pairs24 go, so that they end at about one height: FORMAT.md, "Levelling". Not
// thread-safe.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/format/pairs24/unit_words.h"

namespace sluice::kernels {

class UnitLists {
 public:
  using Words = std::array<StripWords, kPairsStrips>;
  struct Strip {
    int base = 0;  ///< row of 32 words, from the first list of the unit, where its lists start
    std::array<PairsJump, kPairsLanes> jumps{};
  };

  /// Finds places for the lists of all strips, in at most as many rows as the longest lists of the strips
  /// have words together.
  void place(const Words& words);

  const Strip& strip(int index) const { return strips_[static_cast<std::size_t>(index)]; }
  /// Words from the first list to the end of the last one, holes included; a multiple of 4.
  int num_words() const { return num_words_; }

 private:
  void place_levelled(const Words& words);
  void place_whole(const Words& words);

  std::array<Strip, kPairsStrips> strips_{};
  int num_words_ = 0;
};

}  // namespace sluice::kernels
