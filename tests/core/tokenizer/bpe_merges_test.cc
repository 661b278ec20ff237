#include "core/tokenizer/bpe_merges.h"

#include <algorithm>
#include <map>
#include <random>

#include <gtest/gtest.h>

#include "core/error.h"

namespace sluice {
namespace {

using Merge = BpeMerges::Merge;

std::vector<std::int32_t> merged(const BpeMerges& merges, std::vector<std::int32_t> ids) {
  BpeMerges::Workspace work;
  ids.resize(merges.merge(ids, work));
  return ids;
}

/// The definition, step by step: find the lowest rank, merge its leftmost pair, start over.
std::vector<std::int32_t> merged_plainly(const std::vector<Merge>& by_rank, std::vector<std::int32_t> ids) {
  std::map<std::pair<std::int32_t, std::int32_t>, std::pair<std::size_t, std::int32_t>> table;
  for (std::size_t rank = 0; rank < by_rank.size(); ++rank) {
    table[{by_rank[rank].left, by_rank[rank].right}] = {rank, by_rank[rank].merged};
  }
  while (true) {
    std::size_t best = 0, best_rank = by_rank.size();
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto it = table.find({ids[i], ids[i + 1]});
      if (it != table.end() && it->second.first < best_rank) {
        best = i;
        best_rank = it->second.first;
      }
    }
    if (best_rank == by_rank.size()) return ids;
    ids[best] = by_rank[best_rank].merged;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

TEST(BpeMerges, MergesByRankThenFromTheLeft) {
  const std::vector<Merge> by_rank = {{1, 2, 10}, {0, 1, 11}, {0, 0, 12}, {12, 0, 13}};
  const BpeMerges merges(by_rank);
  EXPECT_EQ(merged(merges, {0, 1, 2}), (std::vector<std::int32_t>{0, 10}));
  EXPECT_EQ(merged(merges, {0, 1, 1}), (std::vector<std::int32_t>{11, 1}));
  EXPECT_EQ(merged(merges, {0, 0, 0}), (std::vector<std::int32_t>{13}));
  EXPECT_EQ(merged(merges, {0, 0, 0, 0}), (std::vector<std::int32_t>{12, 12}));
  EXPECT_EQ(merged(merges, {7}), (std::vector<std::int32_t>{7}));
  EXPECT_EQ(merged(merges, {}), (std::vector<std::int32_t>{}));
}

TEST(BpeMerges, WithoutMergesNothingChanges) {
  const BpeMerges merges({});
  EXPECT_EQ(merged(merges, {3, 1, 3, 1}), (std::vector<std::int32_t>{3, 1, 3, 1}));
}

TEST(BpeMerges, TheLastOfARepeatedPairCounts) {
  const std::vector<Merge> by_rank = {{0, 1, 10}, {1, 0, 11}, {0, 1, 12}};
  EXPECT_EQ(merged(BpeMerges(by_rank), {0, 1, 0}), (std::vector<std::int32_t>{0, 11}));
}

// Random tables, some whose merged tokens merge before their parts (no trained table does, but files may).
TEST(BpeMerges, ShortAndLongPiecesFollowTheDefinition) {
  for (std::uint32_t seed = 0; seed < 300; ++seed) {
    std::mt19937 rng(seed);
    const std::int32_t num_bytes = 2 + static_cast<std::int32_t>(rng() % 4);
    std::vector<Merge> by_rank;
    std::int32_t next = num_bytes;
    for (int i = 0; i < 40; ++i) {
      const auto any = [&] { return static_cast<std::int32_t>(rng() % static_cast<std::uint32_t>(next)); };
      const std::int32_t left = any(), right = any();
      by_rank.push_back({left, right, next});
      ++next;
    }
    if (seed % 3 == 0) std::shuffle(by_rank.begin(), by_rank.end(), rng);
    const BpeMerges merges(by_rank);
    for (const std::size_t size : {2, 5, 47, 48, 49, 200}) {
      std::vector<std::int32_t> ids(size);
      for (std::int32_t& id : ids)
        id = static_cast<std::int32_t>(rng() % static_cast<std::uint32_t>(num_bytes));
      ASSERT_EQ(merged(merges, ids), merged_plainly(by_rank, ids)) << "seed " << seed << " size " << size;
    }
  }
}

TEST(BpeMerges, RefusesNegativeIds) {
  const std::vector<Merge> bad = {{0, -1, 2}};
  EXPECT_THROW(BpeMerges{bad}, Error);
}

}  // namespace
}  // namespace sluice
