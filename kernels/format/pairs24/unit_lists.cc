#include "kernels/format/pairs24/unit_lists.h"

#include <algorithm>
#include <functional>

#include "core/units.h"

namespace sluice::kernels {
namespace {

constexpr int kMaxOffset = 3;          // what a jump holds
constexpr int kTargetWords = 1 << 11;  // the same
constexpr int kLastStep = kPairsSteps - 1;
constexpr int kNeverCut = kPairsMaxWords + kMaxOffset;  // a level that no list goes beyond

/// Rows in each of the 32 columns. Beyond a strip's base they are at most 2 * 64 + 3.
using Heights = std::array<std::int16_t, kPairsLanes>;

/// Places of the lists of one strip, from its base on.
struct Choice {
  std::array<PairsJump, kPairsLanes> jumps;
  Heights heights;
  int holes, words;
};

/// The first of the lowest columns.
int lowest(const Heights& heights) {
  Heights keys;
  for (std::size_t c = 0; c < keys.size(); ++c)
    keys[c] = static_cast<std::int16_t>(heights[c] * kPairsLanes + static_cast<int>(c));
  std::int16_t least = keys[0];
  for (const std::int16_t key : keys) least = std::min(least, key);
  return least % kPairsLanes;
}

/// The first step at which a list that starts in row `offset` has reached `level`, or the last one.
int cut_step(const StripWords::Lane& lane, int offset, int level) {
  int step = 0;
  while (step < kLastStep && offset + lane.ahead[static_cast<std::size_t>(step)] < level) ++step;
  return step;
}

void measure(Choice& choice) {
  int top = 0;
  int last = 0;
  for (int c = 0; c < kPairsLanes; ++c) {
    const int height = choice.heights[static_cast<std::size_t>(c)];
    if (height >= top) last = c;
    top = std::max(top, height);
  }
  choice.words = top == 0 ? 0 : (top - 1) * kPairsLanes + last + 1;
  choice.holes = 0;
  for (const int height : choice.heights) choice.holes += std::max(0, top - kMaxOffset - height);
}

/// The lists of a strip cut where they reach `level`, and their tails on the lowest columns.
/// A tail starts below row 64, so that a jump can hold it: with all offsets and words below 32 * 64, the
/// columns that it finds have less than that, and the lowest of them less than 64.
Choice cut(const StripWords& words, const Heights& offsets, int level) {
  Choice choice;
  std::array<int, kPairsLanes> tails;
  std::size_t num_tails = 0;
  for (int l = 0; l < kPairsLanes; ++l) {
    const auto i = static_cast<std::size_t>(l);
    const StripWords::Lane& lane = words.lanes[i];
    const int offset = offsets[i];
    const bool is_long = offset + lane.count() > level + 1;
    int step = is_long ? cut_step(lane, offset, level) : kLastStep;
    const int tail = is_long ? lane.count() - lane.ahead[static_cast<std::size_t>(step)] : 0;
    if (tail == 0) step = kLastStep;
    choice.jumps[i] = {step, offset, (offset + lane.ahead[static_cast<std::size_t>(step)]) * kPairsLanes + l};
    choice.heights[i] = static_cast<std::int16_t>(offset + lane.count() - tail);
    if (tail != 0) tails[num_tails++] = tail * kPairsLanes + kPairsLanes - 1 - l;
  }
  // The longest first, and of equal ones that of the first lane.
  std::sort(tails.data(), tails.data() + num_tails, std::greater<>());
  for (std::size_t i = 0; i < num_tails; ++i) {
    const int column = lowest(choice.heights);
    std::int16_t& height = choice.heights[static_cast<std::size_t>(column)];
    const int lane = kPairsLanes - 1 - tails[i] % kPairsLanes;
    choice.jumps[static_cast<std::size_t>(lane)].target = height * kPairsLanes + column;
    height = static_cast<std::int16_t>(height + tails[i] / kPairsLanes);
  }
  measure(choice);
  return choice;
}

/// The best of several levels, the first of equal ones. Holes ahead of another strip stay; behind the last
/// one, words that come later are not stored.
Choice place_strip(const StripWords& words, const Heights& offsets, bool is_last) {
  int sum = words.count;
  for (const int offset : offsets) sum += offset;
  if (sum >= kTargetWords) return cut(words, offsets, kNeverCut);
  const auto cost = [is_last](const Choice& choice) {
    return (is_last ? 0 : choice.holes << 16) + choice.words;
  };
  const int mean = sum / kPairsLanes;
  Choice best = cut(words, offsets, mean + 1);
  for (int level = mean; level >= mean - 2; --level) {
    const Choice choice = cut(words, offsets, level);
    if (cost(choice) < cost(best)) best = choice;
  }
  return best;
}

int longest_list(const StripWords& strip) {
  int longest = 0;
  for (const StripWords::Lane& lane : strip.lanes) longest = std::max(longest, lane.count());
  return longest;
}

}  // namespace

void UnitLists::place_levelled(const Words& words) {
  Heights heights{};
  for (std::size_t s = 0; s < strips_.size(); ++s) {
    const int base = std::max(0, *std::max_element(heights.begin(), heights.end()) - kMaxOffset);
    Heights offsets;
    for (std::size_t c = 0; c < offsets.size(); ++c)
      offsets[c] = static_cast<std::int16_t>(std::max(0, heights[c] - base));
    const Choice choice = place_strip(words[s], offsets, s + 1 == strips_.size());
    strips_[s] = {base, choice.jumps};
    for (std::size_t c = 0; c < heights.size(); ++c)
      heights[c] = static_cast<std::int16_t>(base + choice.heights[c]);
    num_words_ = static_cast<int>(align_up(base * kPairsLanes + choice.words, 4));
  }
}

void UnitLists::place_whole(const Words& words) {
  int base = 0;
  for (std::size_t s = 0; s < strips_.size(); ++s) {
    strips_[s] = {base, cut(words[s], Heights{}, kNeverCut).jumps};
    base += longest_list(words[s]);
  }
  num_words_ = base * kPairsLanes;
}

void UnitLists::place(const Words& words) {
  int rows = 0;
  for (const StripWords& strip : words) rows += longest_list(strip);
  place_levelled(words);
  if (num_words_ > rows * kPairsLanes) place_whole(words);
}

}  // namespace sluice::kernels
