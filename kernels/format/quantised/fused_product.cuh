// y = epilogue(x W^T + bias) + residual over a quantised W, for up to 64 rows of x. For *.cu files only.
//
// Tiling. A thread block has 256 rows of W, 32 for each of its 8 warps, and goes through their columns in
// steps of 64 bytes a row: 128 codes of 4 bits, or 64 of 8. A tile's columns may be divided among several
// thread blocks (StreamK); their sums are added in the order of columns by whichever warp is last.
//
// Fragments. A lane's part of a row is 16 bytes in one piece, whatever columns these are: which columns meet
// in one step of the multiplier does not matter as long as x has them at the same places. So lane (g, t) has
// row g and bytes 16 t .. 16 t + 15, and takes them 8 columns (a unit) at a time, which are two steps of 16
// columns for the warp. Four lanes' pairs of a step come from 4-bit codes as (c0, c4), (c1, c5): x is staged
// in that order, unit by unit: one 16-byte load of a lane is its B fragments of two steps.
//
// Pipeline. Each warp copies its own codes, several steps ahead. x is shared: a chunk of several steps at a
// time, and one barrier a chunk.
#pragma once

#include "kernels/format/fused_epilogue.cuh"
#include "kernels/format/mma_sm80.cuh"
#include "kernels/format/quantised/decode.cuh"

namespace sluice::kernels::fused {

enum class CodeKind : std::uint8_t { kBytes, kNibbles, kNibblesFromMinimum };

struct QuantProduct {
  const std::byte* weight;
  const void* x;
  std::int64_t x_stride;
  std::int64_t block_bytes;  // of a block of 128 rows
  std::int32_t rows, cols;   // of W
  std::int32_t row_bytes, param_bytes;
  std::int32_t num_groups;
  std::int32_t step_shift;       // log2 of the steps that share a group, 31 for one group a row
  std::int32_t groups_per_step;  // 1 or 2
  bool x_is_aligned;             // rows of x start at multiples of 16 bytes
  StreamK work;
  Exchange exchange;
  Output out;
};

template <class T_, CodeKind kKind_, int kTokenTiles_>
struct QuantTile {
  using T = T_;
  static constexpr CodeKind kKind = kKind_;
  static constexpr int kTokenTiles = kTokenTiles_;  // of 8 rows of x
  static constexpr int kBlocks =
      kTokenTiles <= 4 ? 2 : 1;  // on a multiprocessor: sums of 64 tokens take registers
  static constexpr int kWarps = 8, kThreads = 32 * kWarps;
  static constexpr int kRowTiles = 2;  // of 16 rows of W, of a warp
  static constexpr int kWarpRows = 16 * kRowTiles, kRows = kWarps * kWarpRows;
  static constexpr int kStepBytes = 64;
  static constexpr int kCols = kStepBytes * (kKind == CodeKind::kBytes ? 1 : 2);
  static constexpr int kUnits = kCols / 32;  // of a lane
  static constexpr int kTurn = 8 / kUnits;   // lanes of unit w are exchanged by XOR with kTurn * w
  static constexpr int kXUnits = kUnits * 4 * kTokenTiles * 8;
  static constexpr int kXUnitsPerThread = (kXUnits + kThreads - 1) / kThreads;
  static constexpr int kVectors = kRowTiles * kTokenTiles;  // of a lane's sums

  // Stages of codes, and of chunks of x, which must be there as early.
  static constexpr int kStages = 4;
  static constexpr int kChunk = kTokenTiles <= 2 ? 4 : 1;
  static constexpr int kChunks = 1 + (kStages - 1 + kChunk - 1) / kChunk;
  static_assert(kStages >= 3);

  static constexpr int kCodeBytes = kWarpRows * kStepBytes;  // of a warp and stage
  static constexpr int kParamBytes = kWarpRows * 8;
  static constexpr int kXBytes = kXUnits * 16;  // of a step
  static constexpr int kParamsAt = kWarps * kStages * kCodeBytes;
  static constexpr int kXAt = kParamsAt + kWarps * kStages * kParamBytes;
  static constexpr int kSharedBytes = kXAt + kChunks * kChunk * kXBytes;
};

/// The codes and parameters of one warp on their way into shared memory: a cursor over its thread block's
/// steps.
template <class Tile>
class CodeLoader {
 public:
  using T = typename Tile::T;

  __device__ CodeLoader(const QuantProduct& p, std::uint32_t shared, int first, int steps)
      : p_(p),
        lane_(static_cast<int>(threadIdx.x) % 32),
        warp_(static_cast<int>(threadIdx.x) / 32),
        codes_to_(shared + warp_ * Tile::kStages * Tile::kCodeBytes + lane_ * 16),
        params_to_(shared + Tile::kParamsAt + warp_ * Tile::kStages * Tile::kParamBytes + lane_ * 8),
        left_(steps),
        tile_(first / p.work.per_tile),
        step_(first % p.work.per_tile) {
    enter_tile();
  }

  /// Starts the copies of the next step into its stage, and ends this thread's group of copies.
  __device__ void start() {
    store_params();
    if (left_ > 0) {
      if (rows_ > 0) {
        copy_codes();
        load_params();
      }
      --left_;
      if (++step_ == p_.work.per_tile) {
        step_ = 0;
        ++tile_;
        if (left_ > 0) enter_tile();
      }
    }
    commit_copies();
    before_ = stage_;
    stage_ = stage_ + 1 == Tile::kStages ? 0 : stage_ + 1;
  }

  /// Whether a stage has minima that need the definition's two roundings, in this warp's rows.
  __device__ bool has_tiny_minima(int stage) const { return (tiny_minima_ >> stage & 1U) != 0; }

 private:
  static constexpr int kCopies = Tile::kWarpRows / 8;

  __device__ void enter_tile() {
    const int row = tile_ * Tile::kRows + warp_ * Tile::kWarpRows;
    const int first = row / 128 * 128;
    rows_ = min(p_.rows - row, Tile::kWarpRows);
    if (rows_ <= 0) return;
    const std::byte* block = p_.weight + row / 128 * p_.block_bytes;
    codes_ = block + std::int64_t{row - first} * p_.row_bytes + lane_ % 4 * 16 + step_ * Tile::kStepBytes;
#pragma unroll
    for (int i = 0; i < kCopies; ++i)  // no row beyond the last one is read
      row_at_[i] = static_cast<std::uint32_t>(min(i * 8 + lane_ / 4, rows_ - 1) * p_.row_bytes);
    const int block_rows = min(p_.rows - first, 128);
    params_ = block + std::int64_t{block_rows} * p_.row_bytes +
              std::int64_t{row - first + min(lane_, rows_ - 1)} * p_.param_bytes;
  }

  __device__ void copy_codes() {
    const int bytes =
        step_ * Tile::kStepBytes + lane_ % 4 * 16 < p_.row_bytes ? 16 : 0;  // zeros beyond the row
    const std::uint32_t to = codes_to_ + stage_ * Tile::kCodeBytes;
#pragma unroll
    for (int i = 0; i < kCopies; ++i) copy_async(to + i * 512, codes_ + row_at_[i], bytes);
    codes_ += Tile::kStepBytes;
  }

  /// A lane has one row's parameters, which stay in registers for one step on their way.
  __device__ void load_params() {
    const int group = step_ >> p_.step_shift << (p_.groups_per_step - 1);
    low_ = high_ = 0;
    if constexpr (Tile::kKind == CodeKind::kNibblesFromMinimum) {
      const auto* from = reinterpret_cast<const std::uint32_t*>(params_) + group;
      if (group < p_.num_groups) low_ = __ldg(from);
      if (p_.groups_per_step == 2 && group + 1 < p_.num_groups) high_ = __ldg(from + 1);
    } else {
      const auto* from = reinterpret_cast<const std::uint16_t*>(params_) + group;
      if (group < p_.num_groups) low_ = __ldg(from);
      if (p_.groups_per_step == 2 && group + 1 < p_.num_groups) high_ = __ldg(from + 1);
    }
  }
  __device__ void store_params() {
    store_shared_8(params_to_ + before_ * Tile::kParamBytes, low_, high_);
    if constexpr (Tile::kKind == CodeKind::kNibblesFromMinimum) {
      const bool tiny = is_rounded_twice<T>(low_) || is_rounded_twice<T>(high_);
      const unsigned bit = __any_sync(0xFFFFFFFFU, tiny) ? 1U : 0U;
      tiny_minima_ = (tiny_minima_ & ~(1U << before_)) | bit << before_;
    }
  }

  const QuantProduct& p_;
  const int lane_, warp_;
  const std::uint32_t codes_to_, params_to_;
  int left_, tile_, step_;
  int stage_ = 0, before_ = Tile::kStages - 1;
  int rows_ = 0;  // of the warp in this tile; none if not positive
  const std::byte* codes_ = nullptr;
  const std::byte* params_ = nullptr;
  std::uint32_t row_at_[kCopies] = {};
  std::uint32_t low_ = 0, high_ = 0;
  unsigned tiny_minima_ = 0;
};

/// The columns of x that meet the steps of one thread block.
template <class Tile>
class XLoader {
 public:
  using T = typename Tile::T;

  __device__ XLoader(const QuantProduct& p, std::uint32_t shared, int first, int steps)
      : p_(p), to_(shared + Tile::kXAt), left_(steps), step_(first % p.work.per_tile) {}

  /// Starts the copies of the next chunk; they belong to this thread's next group of copies.
  __device__ void start() {
#pragma unroll 1
    for (int s = 0; s < Tile::kChunk && left_ > 0; ++s, --left_) {
      copy_step(to_ + (chunk_ * Tile::kChunk + s) * Tile::kXBytes);
      if (++step_ == p_.work.per_tile) step_ = 0;
    }
    chunk_ = chunk_ + 1 == Tile::kChunks ? 0 : chunk_ + 1;
  }

  /// Brings this thread's units of a chunk, which have arrived, into the order of the fragments.
  __device__ void arrange(int chunk) const {
    if constexpr (Tile::kKind != CodeKind::kBytes) {
#pragma unroll
      for (int i = 0; i < Tile::kChunk * Tile::kXUnitsPerThread; ++i) {
        if (!has_unit(i % Tile::kXUnitsPerThread)) continue;
        const std::uint32_t at = to_ + (chunk * Tile::kChunk + i / Tile::kXUnitsPerThread) * Tile::kXBytes +
                                 place(i % Tile::kXUnitsPerThread);
        const uint4 v = load_shared_16(at);
        store_shared_16(at, {__byte_perm(v.x, v.z, 0x5410), __byte_perm(v.x, v.z, 0x7632),
                             __byte_perm(v.y, v.w, 0x5410), __byte_perm(v.y, v.w, 0x7632)});
      }
    }
  }

 private:
  static constexpr int kUnitsPerRow = 4 * Tile::kUnits;

  /// Unit i of this thread: row n of x and unit j of that row's columns, so that neighbours read neighbours.
  __device__ static int unit(int i) { return i * Tile::kThreads + static_cast<int>(threadIdx.x); }
  __device__ static bool has_unit(int i) {
    return Tile::kXUnits % Tile::kThreads == 0 || unit(i) < Tile::kXUnits;
  }
  __device__ static std::uint32_t place(int i) {
    const int n = unit(i) / kUnitsPerRow;
    const int j = unit(i) % kUnitsPerRow;
    const int w = j % Tile::kUnits;
    const int lane = (n % 8 * 4 + j / Tile::kUnits) ^ (w * Tile::kTurn);
    return static_cast<std::uint32_t>(((w * Tile::kTokenTiles + n / 8) * 32 + lane) * 16);
  }
  __device__ void copy_step(std::uint32_t stage) const {
#pragma unroll
    for (int i = 0; i < Tile::kXUnitsPerThread; ++i) {
      if (!has_unit(i)) break;
      const int n = unit(i) / kUnitsPerRow;
      const int col = step_ * Tile::kCols + unit(i) % kUnitsPerRow * 8;
      const T* row = static_cast<const T*>(p_.x) + n * p_.x_stride;
      const bool inside = n < p_.out.tokens && col < p_.cols;
      if (!inside || (p_.x_is_aligned && col + 8 <= p_.cols)) {
        copy_async(stage + place(i), inside ? row + col : p_.x, inside ? 16 : 0);
      } else {
        store_shared_16(stage + place(i), gather_unit(row, col, p_.cols));
      }
    }
  }

  const QuantProduct& p_;
  const std::uint32_t to_;
  int left_, step_, chunk_ = 0;
};

/// A lane's codes of one unit to the first halves of both rows' A fragments of two steps.
template <class Tile, bool kTinyMinima>
__device__ void decode_unit(const std::uint32_t (&codes)[4], int unit,
                            const GroupPair<typename Tile::T>& group, std::uint32_t (&out)[4]) {
  using T = typename Tile::T;
  if constexpr (Tile::kKind == CodeKind::kBytes) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      Pair<T> pairs[2];
      bytes_to_pairs<T>(codes[2 * unit + i], pairs);
      out[2 * i] = bits_of_pair(__hmul2_rn(pairs[0], group.scale));
      out[2 * i + 1] = bits_of_pair(__hmul2_rn(pairs[1], group.scale));
    }
  } else if constexpr (kTinyMinima) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      out[i] = decode_twice_rounded<T>(codes[unit] >> 4 * i & 15U, codes[unit] >> (4 * i + 16) & 15U, group);
  } else {
    constexpr bool kMinimum = Tile::kKind == CodeKind::kNibblesFromMinimum;
    Pair<T> pairs[4];
    nibbles_to_pairs<T, kMinimum ? 0 : 8>(codes[unit], pairs);
#pragma unroll
    for (int i = 0; i < 4; ++i)
      out[i] = bits_of_pair(kMinimum ? __hfma2(pairs[i], group.scale, group.minimum)
                                     : __hmul2_rn(pairs[i], group.scale));
  }
}

template <class Tile, bool kTinyMinima>
__device__ void multiply_step(std::uint32_t codes_at, std::uint32_t params_at, std::uint32_t x_at, int lane,
                              float4 (&sums)[Tile::kVectors]) {
  using T = typename Tile::T;
  std::uint32_t codes[2 * Tile::kRowTiles][4];
  std::uint32_t params[2 * Tile::kRowTiles];
#pragma unroll
  for (int r = 0; r < 2 * Tile::kRowTiles; ++r) {  // rows 8 r + lane / 4
    const uint4 v = load_shared_16(codes_at + r * 8 * Tile::kStepBytes + lane * 16);
    codes[r][0] = v.x;
    codes[r][1] = v.y;
    codes[r][2] = v.z;
    codes[r][3] = v.w;
    params[r] = load_shared_4(params_at + r * 64);
  }
#pragma unroll
  for (int w = 0; w < Tile::kUnits; ++w) {
    std::uint32_t a[Tile::kRowTiles][2][4];
#pragma unroll
    for (int m = 0; m < Tile::kRowTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        std::uint32_t pairs[4];
        const int r = 2 * m + half;
        decode_unit<Tile, kTinyMinima>(codes[r], w, GroupPair<T>(params[r]), pairs);
#pragma unroll
        for (int i = 0; i < 4; ++i) a[m][i / 2][i % 2 * 2 + half] = pairs[i];
      }
    }
#pragma unroll
    for (int n = 0; n < Tile::kTokenTiles; ++n) {
      const uint4 b =
          load_shared_16(x_at + ((w * Tile::kTokenTiles + n) * 32 + (lane ^ (w * Tile::kTurn))) * 16);
#pragma unroll
      for (int m = 0; m < Tile::kRowTiles; ++m) {
        multiply_add<T>(sums[m * Tile::kTokenTiles + n], a[m][0], b.x, b.y);
        multiply_add<T>(sums[m * Tile::kTokenTiles + n], a[m][1], b.z, b.w);
      }
    }
  }
}

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    quant_product_kernel(const __grid_constant__ QuantProduct p) {
  extern __shared__ __align__(128) std::byte shared_bytes[];
  const std::uint32_t shared = shared_address(shared_bytes);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int first = p.work.first_unit(static_cast<int>(blockIdx.x));
  const int steps = p.work.first_unit(static_cast<int>(blockIdx.x) + 1) - first;
  int tile = first / p.work.per_tile;
  int step = first % p.work.per_tile;
  CodeLoader<Tile> codes(p, shared, first, steps);
  XLoader<Tile> x(p, shared, first, steps);
#pragma unroll 1
  for (int c = 0; c < Tile::kChunks - 1; ++c) x.start();
#pragma unroll 1
  for (int s = 0; s < Tile::kStages - 1; ++s) codes.start();

  float4 sums[Tile::kVectors] = {};
  const std::uint32_t codes_at = shared + warp * Tile::kStages * Tile::kCodeBytes;
  // Of two groups in a step, the second is that of lanes t = 2 and 3.
  const std::uint32_t params_at = shared + Tile::kParamsAt + warp * Tile::kStages * Tile::kParamBytes +
                                  lane / 4 * 8 + (p.groups_per_step == 2 ? lane % 4 / 2 * 4 : 0);
  int stage = 0, chunk = 0, in_chunk = 0;
  bool has_rows = tile * Tile::kRows + warp * Tile::kWarpRows < p.rows;
#pragma unroll 1
  for (int left = steps; left > 0; --left) {
    await_copies<Tile::kStages - 2>();  // all of this step have arrived
    if (in_chunk == 0) {
      x.arrange(chunk);
      __syncthreads();  // the chunk is complete, and everyone is done with the one before
      x.start();
    } else {
      __syncwarp();
    }
    codes.start();
    if (has_rows) {
      const std::uint32_t c = codes_at + stage * Tile::kCodeBytes;
      const std::uint32_t params = params_at + stage * Tile::kParamBytes;
      const std::uint32_t from_x = shared + Tile::kXAt + (chunk * Tile::kChunk + in_chunk) * Tile::kXBytes;
      if (Tile::kKind == CodeKind::kNibblesFromMinimum && codes.has_tiny_minima(stage)) {
        multiply_step<Tile, true>(c, params, from_x, lane, sums);
      } else {
        multiply_step<Tile, false>(c, params, from_x, lane, sums);
      }
    }
    stage = stage + 1 == Tile::kStages ? 0 : stage + 1;
    if (++in_chunk == Tile::kChunk) {
      in_chunk = 0;
      chunk = chunk + 1 == Tile::kChunks ? 0 : chunk + 1;
    }
    if (++step == p.work.per_tile || left == 1) {
      const int row = tile * Tile::kRows + warp * Tile::kWarpRows;
      if (has_rows)
        finish_fragments<Tile::kRowTiles, Tile::kTokenTiles>(p.work, p.exchange, tile, warp, Tile::kWarps,
                                                             row, p.out, sums);
#pragma unroll
      for (float4& sum : sums) sum = make_float4(0, 0, 0, 0);
      step = 0;
      ++tile;
      has_rows = tile * Tile::kRows + warp * Tile::kWarpRows < p.rows;
    }
  }
}

}  // namespace sluice::kernels::fused
