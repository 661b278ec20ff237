// Lists of nonzeros as 32-bit words, in the order in which a warp stores them to shared memory with few bank
// conflicts: the whole of a tiled_csl tile and the overflow of a bank_csl tile. FORMAT.md, "Words" and
// "Order". Not thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/format/tiled_csl/shared_tile.h"

namespace sluice::kernels {

/// Value and byte offset of the place that it belongs to.
constexpr std::uint32_t pack_word(int place, std::uint16_t value) {
  return value | static_cast<std::uint32_t>(place) << 17;
}

/// Writes the values of `words` to their places; the others stay.
void scatter_words(std::span<const std::byte> words, SharedTile& tile);

/// Lists are padded to whole 16-byte vectors.
inline constexpr int kVectorWords = 4;

class WordList {
 public:
  void clear() { count_.fill(0); }
  /// At most once per place of a SharedTile.
  void add(int place, std::uint16_t value) {
    const auto bank = static_cast<std::size_t>(place >> 1) % kSharedBanks;
    words_[bank * kStride + static_cast<std::size_t>(count_[bank]++)] = pack_word(place, value);
  }
  /// Adds zeros at places that hold zeros until the words fill whole vectors. `nonzeros`: those of the tile.
  void pad(std::span<const std::uint64_t> nonzeros);
  int num_words() const;
  /// Writes the words in their order to `out`, 4 * num_words() bytes, and leaves the list without sense.
  void write(std::byte* out);

 private:
  /// Takes `num_lanes` words for one store, each from the bank that has the most left, but none below `floor`
  /// and of one bank no more than `most`, or what there is need of. out[16 * lane] gets them in the order of
  /// banks.
  void draw(int num_lanes, int floor, int most, std::byte* out);
  std::uint32_t take_last(std::size_t bank) {
    return words_[bank * kStride + static_cast<std::size_t>(--count_[bank])];
  }

  // Two halves of 256 rows, and a cache line more: it takes padding, and without it all banks would fall into
  // the same two sets of L1.
  static constexpr std::size_t kStride = std::size_t{2} * SharedTile::kMaxRows + 16;

  std::array<std::int16_t, kSharedBanks> count_{};
  std::array<std::uint32_t, kSharedBanks * kStride> words_;
};

}  // namespace sluice::kernels
