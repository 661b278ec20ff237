#include "kernels/format/tiled_csl/word_list.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>

#include "core/error.h"
#include "core/units.h"

namespace sluice::kernels {
namespace {

constexpr int kLanes = 32;
constexpr std::ptrdiff_t kStoreBytes = sizeof(std::uint32_t);  // between the stores of a lane
constexpr std::ptrdiff_t kLaneBytes = kVectorWords * kStoreBytes, kGroupBytes = kLanes * kLaneBytes;

using Counts = std::array<std::int16_t, kSharedBanks>;

/// Words above `level` in each bank, at most `most` of them, all together.
int words_above(const Counts& counts, int level, int most) {
  std::int16_t sum = 0;  // 16 bits, at most 32 * 528, so that a vector holds 8 banks or more
  for (const std::int16_t count : counts) {
    const auto above = static_cast<std::int16_t>(count - level);
    sum =
        static_cast<std::int16_t>(sum + std::clamp<std::int16_t>(above, 0, static_cast<std::int16_t>(most)));
  }
  return sum;
}

}  // namespace

void scatter_words(std::span<const std::byte> words, SharedTile& tile) {
  for (std::size_t i = 0; i < words.size(); i += sizeof(std::uint32_t)) {
    std::uint32_t word = 0;
    std::memcpy(&word, words.data() + i, sizeof(word));
    // Offsets were checked when the store was opened; a bad read since then shall not write elsewhere.
    tile.values[(word >> 17) % std::size(tile.values)] = static_cast<std::uint16_t>(word);
  }
}

int WordList::num_words() const { return std::accumulate(count_.begin(), count_.end(), 0); }

void WordList::pad(std::span<const std::uint64_t> nonzeros) {
  const int words = num_words();
  int missing = static_cast<int>(align_up(words, kVectorWords)) - words;
  if (missing == 0) return;
  std::array<int, kSharedBanks> place;  // the first one of each bank that holds a zero, -1 if none does
  place.fill(-1);
  int num_found = 0;
  for (std::size_t r = 0; r < nonzeros.size() && num_found < kSharedBanks; ++r) {
    for (std::size_t b = 0; b < kSharedBanks; ++b) {
      const std::uint64_t pair = nonzeros[r] >> (2 * b) & 3U;
      if (pair == 3 || place[b] >= 0) continue;
      place[b] = static_cast<int>(r * kSharedCols + 2 * b + (pair & 1U));
      ++num_found;
    }
  }
  SLUICE_ASSERT(num_found > 0);
  for (; missing > 0; --missing) {
    std::size_t emptiest = kSharedBanks;
    for (std::size_t b = 0; b < kSharedBanks; ++b) {
      if (place[b] >= 0 && (emptiest == kSharedBanks || count_[b] < count_[emptiest])) emptiest = b;
    }
    add(place[emptiest], 0);
  }
}

void WordList::draw(int num_lanes, int floor, int most, std::byte* out) {
  while (words_above(count_, floor, most) < num_lanes) ++most;
  // The highest level above which there is enough; of the banks that end on it the last ones give one less.
  int level = floor;
  for (int end = *std::max_element(count_.begin(), count_.end()); end - level > 1;) {
    const int middle = (level + end) / 2;
    (words_above(count_, middle, most) >= num_lanes ? level : end) = middle;
  }
  int spare = words_above(count_, level, most) - num_lanes;
  std::array<int, kSharedBanks> take;
  for (std::size_t b = kSharedBanks; b-- > 0;) {
    const int above = count_[b] - level;
    const bool gives_less = spare > 0 && above > 0 && above <= most;
    take[b] = std::clamp(above, 0, most) - (gives_less ? 1 : 0);
    spare -= gives_less ? 1 : 0;
  }
  for (std::size_t b = 0; b < kSharedBanks; ++b) {
    for (int i = 0; i < take[b]; ++i, out += kLaneBytes) {
      const std::uint32_t word = take_last(b);
      std::memcpy(out, &word, sizeof(word));
    }
  }
}

void WordList::write(std::byte* out) {
  const int num_vectors = num_words() / kVectorWords;
  const int num_stores = num_vectors / kLanes * kVectorWords;  // of 32 lanes
  const int tail_lanes = num_vectors % kLanes;
  const auto store_at = [&](int store) {
    return out + store / kVectorWords * kGroupBytes + store % kVectorWords * kStoreBytes;
  };
  if (tail_lanes > 0) {
    for (int v = 0; v < kVectorWords; ++v) draw(tail_lanes, 0, 1, store_at(num_stores + v));
  }
  // As many stores as the emptiest bank has words take one word of each bank. The others come first, from
  // what the banks have above that, so that nothing else is left.
  const int num_even = *std::min_element(count_.begin(), count_.end());
  for (int store = num_even; store < num_stores; ++store) {
    const int surplus = *std::max_element(count_.begin(), count_.end()) - num_even;
    const int most = std::max(2, static_cast<int>(div_up(surplus, num_stores - store)));
    draw(kLanes, num_even, most, store_at(store));
  }
  for (std::size_t b = 0; b < kSharedBanks; ++b) {
    const std::uint32_t* words = words_.data() + b * kStride;
    std::byte* lane = out + static_cast<std::ptrdiff_t>(b) * kLaneBytes;
    int store = 0;
    for (; store + kVectorWords <= num_even; store += kVectorWords)
      std::memcpy(lane + store / kVectorWords * kGroupBytes, words + store, kLaneBytes);
    for (; store < num_even; ++store)
      std::memcpy(lane + (store_at(store) - out), words + store, sizeof(*words));
  }
}

}  // namespace sluice::kernels
