// Byte-pair merges on token ids: a rank table keyed by pairs of ids, and the merging of one piece. Immutable,
// so thread-safe; a Workspace belongs to one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace sluice {

class BpeMerges {
 public:
  /// Memory that is reused from piece to piece, so that merging allocates only while it grows.
  struct Workspace {
    struct Link {
      std::int32_t previous, next;
    };
    struct Candidate {  ///< merges `left` and what follows it, unless either has changed meanwhile
      std::int32_t rank, position, left, right;
    };
    std::vector<std::int32_t> ranks;
    std::vector<Link> links;
    std::vector<Candidate> heap;
  };

  /// Ids `left` and `right` become `merged`.
  struct Merge {
    std::int32_t left, right, merged;
  };
  /// The earlier a merge stands in the list, the earlier it happens; of a repeated pair the last one counts.
  explicit BpeMerges(std::span<const Merge> by_rank);

  /// Merges `ids` in place, always the pair of lowest rank, the leftmost of equals, until no pair has a rank.
  /// Returns how many ids remain, at the front. O(n log n); up to kShortPiece ids by linear scans.
  std::size_t merge(std::span<std::int32_t> ids, Workspace& work) const;

  static constexpr std::size_t kShortPiece = 48;

 private:
  static constexpr std::int32_t kNoRank = std::numeric_limits<std::int32_t>::max();
  struct Slot {
    std::uint64_t pair;
    std::int32_t rank, merged;
  };
  /// The slot that holds the pair, or the empty one where it would go (rank kNoRank).
  std::size_t slot_of(std::int32_t left, std::int32_t right) const;
  const Slot& find(std::int32_t left, std::int32_t right) const { return slots_[slot_of(left, right)]; }
  std::size_t merge_short(std::span<std::int32_t> ids, Workspace& work) const;
  std::size_t merge_long(std::span<std::int32_t> ids, Workspace& work) const;

  std::vector<Slot> slots_;  ///< open addressing, a power of two, at most half full
  int shift_ = 0;            ///< 64 - log2(slots)
};

}  // namespace sluice
