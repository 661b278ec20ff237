// What the fused products over quantised weights share: parameters, and codes to values of a fragment. For
// *.cu files only.
#pragma once

#include "kernels/format/cuda/fused_epilogue.cuh"
#include "kernels/format/cuda/fused_launch.cuh"
#include "kernels/format/quantised/decode.cuh"
#include "kernels/format/quantised/quantised.h"

namespace sluice::kernels::fused {

enum class CodeKind : std::uint8_t { kBytes, kNibbles, kNibblesFromMinimum };

inline CodeKind code_kind(const QuantLayout& layout) {
  if (layout.bits == 8) return CodeKind::kBytes;
  return layout.has_minimum ? CodeKind::kNibblesFromMinimum : CodeKind::kNibbles;
}

/// Offsets in 32 rows of codes and parameters, which kernels count in 32 bits, allow so many columns.
inline constexpr std::int64_t kMaxQuantCols = std::int64_t{1} << 25;
/// Rows of x of one launch, at most.
inline constexpr std::int64_t kMaxQuantTokens = 64;
inline bool can_multiply_quantised(const LinearArgs& args) {
  return args.weight.cols <= kMaxQuantCols && can_multiply(args, kMaxQuantTokens);
}

struct QuantProduct {
  const std::byte* weight;
  const void* x;
  std::int64_t x_stride;
  std::int64_t block_bytes;  // of a block of 128 rows
  std::int32_t rows, cols;   // of W
  std::int32_t row_bytes, param_bytes;
  std::int32_t num_groups;
  std::int32_t group_shift;  // log2 of a group's columns, 31 for one group a row
  bool x_is_aligned;         // rows of x start at multiples of 16 bytes
  StreamK work;              // in units of 128 bytes a row
  Exchange exchange;
  Output out;

  /// Of a block of 128 rows: those that W has, from none (or fewer) on.
  __device__ int block_rows(int block) const { return min(rows - block * 128, 128); }
  __device__ const std::byte* block(int block) const { return weight + block * block_bytes; }
  /// From one group's parameters of a block to the next one's, and the first.
  __device__ int group_bytes(int block) const { return (block_rows(block) * param_bytes + 15) / 16 * 16; }
  __device__ const std::byte* params(int at) const {
    return block(at) + std::int64_t{block_rows(at)} * row_bytes;
  }
};

inline QuantProduct lower_quant_product(const LinearArgs& args, const QuantLayout& layout,
                                        const StreamK& work, const Exchange& exchange) {
  const WeightView& weight = args.weight;
  const bool whole_row = weight.format.encoding == Encoding::kInt8;
  return {.weight = weight.data.data(),
          .x = args.x.data,
          .x_stride = args.x.stride,
          .block_bytes = layout.block_bytes(kQuantBlockRows),
          .rows = static_cast<std::int32_t>(weight.rows),
          .cols = static_cast<std::int32_t>(weight.cols),
          .row_bytes = static_cast<std::int32_t>(layout.row_bytes),
          .param_bytes = static_cast<std::int32_t>(layout.param_bytes),
          .num_groups = static_cast<std::int32_t>(layout.num_groups),
          .group_shift = whole_row                 ? 31
                         : layout.group_cols == 64 ? 6
                                                   : 7,
          .x_is_aligned = has_aligned_x(args),
          .work = work,
          .exchange = exchange,
          .out = lower_output(args)};
}

/// As many rows of x, in eights, as a launch computes: the smallest that hold `tokens`.
inline int token_tiles(std::int64_t tokens) {
  return tokens <= 8 ? 1 : tokens <= 16 ? 2 : tokens <= 32 ? 4 : 8;
}

/// A lane's codes of a row in 32 columns, which are two steps of the multiplier: one word of a chunk of 4-bit
/// codes, or of two of 8-bit codes. Pairs of columns 2 t, 2 t + 1 and 8, 16 and 24 further on for lane t.
template <class Tile, DecodeWay kWay>
__device__ void decode_turn(const std::uint32_t (&codes)[4], int turn,
                            const GroupPair<typename Tile::T>& group, std::uint32_t (&out)[4]) {
  using T = typename Tile::T;
  if constexpr (Tile::kKind == CodeKind::kBytes) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      Pair<T> pairs[2];
      bytes_to_pairs<T>(codes[2 * turn + i], pairs);
      out[2 * i] = bits_of_pair(__hmul2_rn(pairs[0], group.scale));
      out[2 * i + 1] = bits_of_pair(__hmul2_rn(pairs[1], group.scale));
    }
  } else if constexpr (kWay == DecodeWay::kScaledNibbles) {
    decode_scaled_nibbles(codes[turn], group.scale, group.minimum, out);
  } else if constexpr (kWay == DecodeWay::kDefinition) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      out[i] = decode_twice_rounded<T>(codes[turn] >> 4 * i & 15U, codes[turn] >> (4 * i + 16) & 15U, group);
  } else {
    constexpr bool kMinimum = Tile::kKind == CodeKind::kNibblesFromMinimum;
    Pair<T> pairs[4];
    nibbles_to_pairs<T, kMinimum ? 0 : 8>(codes[turn], pairs);
#pragma unroll
    for (int i = 0; i < 4; ++i)
      out[i] = bits_of_pair(kMinimum ? __hfma2(pairs[i], group.scale, group.minimum)
                                     : __hmul2_rn(pairs[i], group.scale));
  }
}

}  // namespace sluice::kernels::fused
