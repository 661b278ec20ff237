#include "core/tokenizer/bpe_merges.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "core/error.h"

namespace sluice {
namespace {

constexpr std::uint64_t kNoPair = std::numeric_limits<std::uint64_t>::max();
constexpr std::int32_t kNone = -1;

std::uint64_t pair_of(std::int32_t left, std::int32_t right) {
  return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32) |
         static_cast<std::uint32_t>(right);
}

}  // namespace

BpeMerges::BpeMerges(std::span<const Merge> by_rank) {
  const std::size_t num_slots = std::bit_ceil(std::max<std::size_t>(2 * by_rank.size(), 2));
  slots_.assign(num_slots, Slot{kNoPair, kNoRank, kNone});
  shift_ = 64 - std::countr_zero(num_slots);
  std::int32_t rank = 0;
  for (const auto& [left, right, merged] : by_rank) {
    SLUICE_ASSERT(left >= 0 && right >= 0 && merged >= 0 && rank < kNoRank);
    slots_[slot_of(left, right)] = {pair_of(left, right), rank++, merged};
  }
}

std::size_t BpeMerges::slot_of(std::int32_t left, std::int32_t right) const {
  const std::uint64_t pair = pair_of(left, right);
  std::size_t i = (pair * 0x9E3779B97F4A7C15U) >> shift_;  // multiplicative hashing, Knuth 6.4
  while (slots_[i].pair != pair && slots_[i].pair != kNoPair) i = (i + 1) & (slots_.size() - 1);
  return i;
}

std::size_t BpeMerges::merge(std::span<std::int32_t> ids, Workspace& work) const {
  SLUICE_ASSERT(ids.size() < static_cast<std::size_t>(kNoRank));
  return ids.size() <= kShortPiece ? merge_short(ids, work) : merge_long(ids, work);
}

std::size_t BpeMerges::merge_short(std::span<std::int32_t> ids, Workspace& work) const {
  // ranks[i] is that of the pair (ids[i], ids[i + 1]).
  std::vector<std::int32_t>& ranks = work.ranks;
  std::size_t size = ids.size();
  if (size < 2) return size;
  ranks.resize(kShortPiece);
  for (std::size_t i = 0; i + 1 < size; ++i) ranks[i] = find(ids[i], ids[i + 1]).rank;
  while (size > 1) {
    const auto lowest =
        std::min_element(ranks.begin(), ranks.begin() + static_cast<std::ptrdiff_t>(size) - 1);
    if (*lowest == kNoRank) break;
    const auto i = static_cast<std::size_t>(lowest - ranks.begin());
    ids[i] = find(ids[i], ids[i + 1]).merged;
    --size;
    for (std::size_t j = i + 1; j < size; ++j) ids[j] = ids[j + 1];
    for (std::size_t j = i; j + 1 < size; ++j) ranks[j] = ranks[j + 1];
    if (i + 1 < size) ranks[i] = find(ids[i], ids[i + 1]).rank;
    if (i > 0) ranks[i - 1] = find(ids[i - 1], ids[i]).rank;
  }
  return size;
}

std::size_t BpeMerges::merge_long(std::span<std::int32_t> ids, Workspace& work) const {
  std::vector<Workspace::Link>& links = work.links;
  std::vector<Workspace::Candidate>& heap = work.heap;
  const auto size = static_cast<std::int32_t>(ids.size());
  const auto id_at = [&](std::int32_t i) -> std::int32_t& { return ids[static_cast<std::size_t>(i)]; };
  const auto link = [&](std::int32_t i) -> Workspace::Link& { return links[static_cast<std::size_t>(i)]; };
  const auto merges_later = [](const Workspace::Candidate& a, const Workspace::Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
  };
  const auto consider = [&](std::int32_t left, std::int32_t right) {
    const std::int32_t rank = find(id_at(left), id_at(right)).rank;
    if (rank == kNoRank) return;
    heap.push_back({rank, left, id_at(left), id_at(right)});
    std::push_heap(heap.begin(), heap.end(), merges_later);
  };

  links.resize(ids.size());
  heap.clear();
  for (std::int32_t i = 0; i < size; ++i) link(i) = {i - 1, i + 1 < size ? i + 1 : kNone};
  for (std::int32_t i = 0; i + 1 < size; ++i) consider(i, i + 1);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), merges_later);
    const Workspace::Candidate best = heap.back();
    heap.pop_back();
    const std::int32_t left = best.position;
    const std::int32_t right = link(left).next;
    // A candidate is stale once its left part was swallowed (its id is kNone) or either part has grown.
    if (right == kNone || id_at(left) != best.left || id_at(right) != best.right) continue;
    id_at(left) = find(best.left, best.right).merged;
    id_at(right) = kNone;
    const std::int32_t after = link(right).next;
    link(left).next = after;
    if (after != kNone) {
      link(after).previous = left;
      consider(left, after);
    }
    if (link(left).previous != kNone) consider(link(left).previous, left);
  }
  return static_cast<std::size_t>(std::remove(ids.begin(), ids.end(), kNone) - ids.begin());
}

}  // namespace sluice
