// The words of a unit of pairs24 on their way from shared memory to registers: those of lists
// (FORMAT.md, "Lists"), and entries, as operands of a product of their own. For *.cu files only.
#pragma once

#include <cstddef>

#include "kernels/device/cuda/tensor_core.cuh"
#include "kernels/format/pairs24/pairs24_shape.cuh"

namespace sluice::kernels::pairs24 {

/// A lane's words of a unit that has masks or not, in the order of FORMAT.md. The unit is in shared memory.
template <PairsLeft kLeft>
class LaneWords {
 public:
  __device__ LaneWords(SharedAddress unit, const PairsStart& start, int strip, int lane) {
    const SharedAddress fixed = unit + offsetof(PairsHead, strips) + strip * sizeof(PairsStrip);
    const SharedAddress lists = unit + 4 * start.word;
    has_pair_ = load_shared_4(fixed + offsetof(PairsStrip, pairs) + 4 * lane);
    if constexpr (kLeft == PairsLeft::kMasks)
      has_left_ = load_shared_4(unit + sizeof(PairsHead) + 4 * (kPairsLanes * strip + lane));
    const std::uint32_t jump = sm90::load_half_word(fixed + offsetof(PairsStrip, jumps) + 2 * lane);
    const uint4 metadata = load_shared_16(fixed + offsetof(PairsStrip, metadata) + 16 * lane);
    metadata_[0] = metadata.x;
    metadata_[1] = metadata.y;
    metadata_[2] = metadata.z;
    metadata_[3] = metadata.w;
    at_ = lists + 4 * lane + (jump >> 3 & 3) * kPairsListStride;
    jump_step_ = static_cast<int>(jump & 7);
    jump_target_ = lists + (jump >> 5) * 4;
  }
  __device__ std::uint32_t metadata(int step) const { return metadata_[step / 2]; }

  /// The words of a step, zeros where none is stored; without masks `left` is not touched. Steps from 0 on,
  /// one after the other.
  __device__ __forceinline__ void load(int step, const std::uint32_t (&steps)[8], std::uint32_t (&pairs)[4],
                                       std::uint32_t (&left)[4]) {
    if (step == jump_step_) at_ = jump_target_;
    const int byte = step / 2 * 8;
    const int bit = step % 2 * 4;
#pragma unroll
    for (std::uint32_t& word : pairs) word = 0;
#pragma unroll
    for (int r = 0; r < 4; ++r) take(pairs[r], has_pair_ >> byte, bit + r, steps[bit + r]);
    if constexpr (kLeft == PairsLeft::kMasks) {
#pragma unroll
      for (std::uint32_t& word : left) word = 0;
#pragma unroll
      for (int r = 0; r < 4; ++r) take(left[r], has_left_ >> byte, bit + r, steps[bit + r]);
    }
  }

 private:
  /// The next word if bit `bit` of `has` is set. `factor` moves that bit to 128, the step of the list.
  __device__ __forceinline__ void take(std::uint32_t& word, std::uint32_t has, int bit,
                                       std::uint32_t factor) {
    static_assert(kPairsListStride == 128);
    const std::uint32_t set = has & 1U << bit;
    asm volatile("{\n.reg .pred stored;\nsetp.ne.u32 stored, %2, 0;\n@stored ld.shared.b32 %0, [%1];\n}"
                 : "+r"(word)
                 : "r"(at_), "r"(set));
    asm("mad.lo.u32 %0, %1, %2, %0;" : "+r"(at_) : "r"(set), "r"(factor));
  }

  std::uint32_t has_pair_, has_left_ = 0, metadata_[4];
  SharedAddress at_, jump_target_;
  int jump_step_;
};

/// Entries that one product takes: lane l has those from 2 (l % 4) on.
inline constexpr int kEntriesAtOnce = 8;

/// Where the entries of a strip are, in bytes from the start of its unit, which has no masks.
__device__ __forceinline__ std::uint32_t entries_at(SharedAddress unit, int strip) {
  std::uint32_t words = 0;
#pragma unroll
  for (int s = 0; s + 1 < kPairsStrips; ++s) {
    if (s < strip) words += pairs_entry_words(PairsStart::unpack(load_shared_4(unit + 4 * s)).entries);
  }
  return sizeof(PairsHead) + 4 * words;
}

/// A lane's part of a fragment of mma.m16n8k8, 16 rows by 8 entries, each a column with one value: rows lane
/// / 4 and 8 more. Its entries are those of b's two rows in its register.
__device__ __forceinline__ void entry_fragment(const std::uint32_t (&entries)[2], int lane,
                                               std::uint32_t (&fragment)[2]) {
  const std::uint32_t rows[2] = {(entries[0] >> 24) - static_cast<std::uint32_t>(lane / 4),
                                 (entries[1] >> 24) - static_cast<std::uint32_t>(lane / 4)};
#pragma unroll
  for (std::uint32_t i = 0; i < 2; ++i)
    fragment[i] = (rows[0] == 8 * i ? entries[0] & 0xFFFFU : 0) | (rows[1] == 8 * i ? entries[1] << 16 : 0);
}

}  // namespace sluice::kernels::pairs24
