// y = epilogue(x W^T + bias) + residual over a bitmap W, for up to 128 rows of x. For *.cu files only.
//
// Tiling. A thread block has 256 rows of W, 32 for each of its 8 warps, and goes through their columns a
// segment (128 columns of each row) at a time. A tile's columns may be divided among several thread blocks
// (StreamK); their sums are added in the order of columns by whichever warp is last.
//
// Fragments. Which columns meet in one step of the multiplier does not matter as long as x has them at the
// same places. So lane (g, t) takes columns 32 t .. 32 t + 31 of rows g, g + 8, g + 16 and g + 24: one word
// of each row's mask. A nonzero is loaded from shared memory by those lanes alone whose bit is set, straight
// into the fragment; its address is the number of nonzeros before it. No dense tile is made.
//
// Pipeline. Lane l reads the masks of its warp's row l one segment ahead, counts them, and leaves every word
// of 32 bits beside the address of its first nonzero. Then four lanes a row copy the nonzeros.
#pragma once

#include "kernels/format/bitmap/bitmap.h"
#include "kernels/format/cuda/fused_epilogue.cuh"
#include "kernels/format/cuda/mma_sm80.cuh"

namespace sluice::kernels::fused {

struct BitmapProduct {
  const std::byte* chunks;
  const std::uint32_t* table;
  const void* x;
  std::int64_t x_stride;
  std::int32_t rows, cols;  // of W
  std::int32_t row_segments;
  std::int32_t stage_vectors;  // of 8 nonzeros, of a warp and segment, that have room in shared memory
  bool x_is_aligned;           // rows of x start at multiples of 16 bytes
  StreamK work;                // in segments
  Exchange exchange;
  Output out;
};

template <class T_, int kTokenTiles_, int kStages_>
struct BitmapTile {
  using T = T_;
  static constexpr int kTokenTiles = kTokenTiles_;  // of 8 rows of x
  static constexpr int kStages = kStages_;
  static constexpr int kBlocks = kTokenTiles <= 8 ? 2 : 1;  // on a multiprocessor
  static constexpr int kWarps = 8, kThreads = 32 * kWarps;
  static constexpr int kRowTiles = 2, kWarpRows = 16 * kRowTiles, kRows = kWarps * kWarpRows;
  static constexpr int kCols = static_cast<int>(kBitmapSegmentCols);
  static constexpr int kVectors = kRowTiles * kTokenTiles;         // of a lane's sums
  static constexpr int kWordBytes = kWarpRows * (kCols / 32) * 8;  // words and addresses
  static constexpr int kXUnits = kCols / 8 * kTokenTiles * 8, kXBytes = kXUnits * 16;
  static constexpr int kXUnitsPerThread = (kXUnits + kThreads - 1) / kThreads;

  /// Shared memory: x of all stages, then the stages of each warp.
  __host__ __device__ static int stage_bytes(int stage_vectors) { return kWordBytes + stage_vectors * 16; }
  __host__ __device__ static int shared_bytes(int stage_vectors) {
    return kStages * (kXBytes + kWarps * stage_bytes(stage_vectors));
  }
};

/// Masks and nonzeros of one warp on their way into shared memory: a cursor over its thread block's segments.
template <class Tile>
class NonzeroLoader {
 public:
  __device__ NonzeroLoader(const BitmapProduct& p, std::uint32_t stages, int first, int steps)
      : p_(p),
        policy_(evict_first_policy()),
        lane_(static_cast<int>(threadIdx.x) % 32),
        warp_(static_cast<int>(threadIdx.x) / 32),
        stages_(stages),
        left_(steps),
        tile_(first / p.row_segments),
        segment_(first % p.row_segments) {
    enter_tile();
    fetch();
    count_before();
  }

  /// Counts the next segment's masks, which have arrived, starts the copies of its nonzeros, and asks for the
  /// masks after it. False if the stage has no room: then the addresses are those of device memory.
  __device__ bool start(int stage) {
    if (left_ == 0) return true;
    const std::uint32_t words = stages_ + stage * Tile::stage_bytes(p_.stage_vectors);
    const std::uint32_t values = words + Tile::kWordBytes;
    const int upto_1 = __popc(mask_.x);
    const int upto_2 = upto_1 + __popc(mask_.y);
    const int upto_3 = upto_2 + __popc(mask_.z);
    const int count = upto_3 + __popc(mask_.w);
    const int first = position_ / 8;
    const int vectors = count == 0 ? 0 : (position_ + count + 7) / 8 - first;
    int upto = vectors;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const int before = __shfl_up_sync(0xFFFFFFFFU, upto, distance);
      if (lane_ >= distance) upto += before;
    }
    const int at = upto - vectors;
    const bool fits = __shfl_sync(0xFFFFFFFFU, upto, 31) <= p_.stage_vectors;
    const std::uint32_t from = begin_ + static_cast<std::uint32_t>(detail::kChunkMaskBytes / 16 + first);
    std::uint32_t address = from * 8 + position_ % 8;
    std::uint32_t size = 1;
    if (fits) {
      address = values + (at * 8 + position_ % 8) * 2;
      size = 2;
      copy_values(values, from, static_cast<std::uint32_t>(at << 8 | vectors));
    }
    const std::uint32_t to = words + lane_ * 32;
    store_shared_16(to, {mask_.x, address, mask_.y, address + upto_1 * size});
    store_shared_16(to + 16, {mask_.z, address + upto_2 * size, mask_.w, address + upto_3 * size});
    position_ += count;
    --left_;
    const bool is_new = advance();
    fetch();
    if (is_new) count_before();
    return fits;
  }

 private:
  __device__ void copy_values(std::uint32_t values, std::uint32_t from, std::uint32_t place) const {
#pragma unroll
    for (int i = 0; i < Tile::kWarpRows / 8; ++i) {
      const int row = i * 8 + lane_ / 4;
      const std::byte* source = p_.chunks + std::int64_t{16} * __shfl_sync(0xFFFFFFFFU, from, row);
      const std::uint32_t that = __shfl_sync(0xFFFFFFFFU, place, row);
      const int vectors = static_cast<int>(that & 255U);
      const std::uint32_t to = values + (that >> 8) * 16;
#pragma unroll 1
      for (int v = lane_ % 4; v < vectors; v += 4) copy_async(to + v * 16, source + v * 16, 16, policy_);
    }
  }

  /// Finds where this lane's row stands.
  __device__ void enter_tile() {
    const int row = tile_ * Tile::kRows + warp_ * Tile::kWarpRows + lane_;
    has_row_ = row < p_.rows;
    const std::int64_t number = std::int64_t{has_row_ ? row : 0} * p_.row_segments + segment_;
    chunk_ = static_cast<std::uint32_t>(number / kBitmapChunkSegments);
    within_ = has_row_ ? static_cast<int>(number % kBitmapChunkSegments) : 0;
    begin_ = __ldg(p_.table + chunk_);
    next_begin_ = __ldg(p_.table + chunk_ + 1);
  }

  /// Counts the nonzeros of the chunk before this segment; all lanes together, a row at a time.
  __device__ void count_before() {
    position_ = 0;
    if (!__any_sync(0xFFFFFFFFU, within_ != 0)) return;
    constexpr int kAtOnce = 16;  // loads in flight
#pragma unroll 1
    for (int first = 0; first < Tile::kWarpRows; first += kAtOnce) {
      uint4 mask[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const std::uint32_t begin = __shfl_sync(0xFFFFFFFFU, begin_, first + i);
        const int before = __shfl_sync(0xFFFFFFFFU, within_, first + i);
        mask[i] = {};
        if (lane_ < before)
          mask[i] = __ldg(reinterpret_cast<const uint4*>(p_.chunks + std::int64_t{16} * begin) + lane_);
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int count = __popc(mask[i].x) + __popc(mask[i].y) + __popc(mask[i].z) + __popc(mask[i].w);
        const auto sum = static_cast<int>(__reduce_add_sync(0xFFFFFFFFU, static_cast<unsigned>(count)));
        if (lane_ == first + i) position_ = sum;
      }
    }
  }

  /// To the next segment; true if it is another tile's.
  __device__ bool advance() {
    if (++segment_ == p_.row_segments) {
      segment_ = 0;
      ++tile_;
      if (left_ > 0) enter_tile();
      return left_ > 0;
    }
    if (has_row_ && ++within_ == kBitmapChunkSegments) {
      within_ = 0;
      position_ = 0;
      ++chunk_;
      begin_ = next_begin_;
      next_begin_ = __ldg(p_.table + chunk_ + 1);
    }
    return false;
  }

  __device__ void fetch() {
    mask_ = {};
    if (left_ > 0 && has_row_)
      mask_ = __ldg(reinterpret_cast<const uint4*>(p_.chunks + std::int64_t{16} * begin_) + within_);
  }

  const BitmapProduct& p_;
  const std::uint64_t policy_;
  const int lane_, warp_;
  const std::uint32_t stages_;
  int left_, tile_, segment_;
  bool has_row_ = false;
  std::uint32_t chunk_ = 0, begin_ = 0, next_begin_ = 0;  // of the lane's row; starts in units of 16 bytes
  int within_ = 0, position_ = 0;                         // segments and nonzeros of the chunk before this
  uint4 mask_ = {};
};

/// The columns of x that meet the segments of one thread block.
template <class Tile>
class SegmentXLoader {
 public:
  using T = typename Tile::T;

  __device__ SegmentXLoader(const BitmapProduct& p, std::uint32_t shared, int first, int steps)
      : p_(p), to_(shared), left_(steps), segment_(first % p.row_segments) {}

  __device__ void start(int stage) {
    if (left_ == 0) return;
#pragma unroll
    for (int i = 0; i < Tile::kXUnitsPerThread; ++i) {
      const int unit = i * Tile::kThreads + static_cast<int>(threadIdx.x);
      if (Tile::kXUnits % Tile::kThreads != 0 && unit >= Tile::kXUnits) break;
      copy_unit(unit / (Tile::kCols / 8), unit % (Tile::kCols / 8), to_ + stage * Tile::kXBytes);
    }
    --left_;
    if (++segment_ == p_.row_segments) segment_ = 0;
  }

 private:
  /// Columns 8 c .. 8 c + 7 of row n of x, which lane (n % 8, c / 4) takes in its step c % 4.
  __device__ void copy_unit(int n, int c, std::uint32_t stage) const {
    const int lane = (n % 8 * 4 + c / 4) ^ (2 * (c % 4));
    const std::uint32_t to = stage + ((c % 4 * Tile::kTokenTiles + n / 8) * 32 + lane) * 16;
    const int col = segment_ * Tile::kCols + c * 8;
    const T* row = static_cast<const T*>(p_.x) + n * p_.x_stride;
    const bool inside = n < p_.out.tokens && col < p_.cols;
    if (!inside || (p_.x_is_aligned && col + 8 <= p_.cols)) {
      // A copy of nothing names an aligned address too.
      copy_async(to, inside ? static_cast<const void*>(row + col) : p_.chunks, inside ? 16 : 0);
    } else {
      store_shared_16(to, gather_unit(row, col, p_.cols));
    }
  }

  const BitmapProduct& p_;
  const std::uint32_t to_;
  int left_, segment_;
};

/// The nonzero at `address`, if that bit is set, and the address of the next.
template <int kBit>
__device__ __forceinline__ void take_shared(std::uint32_t& value, std::uint32_t& address,
                                            std::uint32_t mask) {
  asm volatile(
      "{\n.reg .pred is_set;\n.reg .b32 bit;\n"
      "and.b32 bit, %2, %3;\n"
      "setp.ne.u32 is_set, bit, 0;\n"
      "@is_set ld.shared.u16 %0, [%1];\n"
      "@is_set add.u32 %1, %1, 2;\n}"
      : "+r"(value), "+r"(address)
      : "r"(mask), "n"(1U << kBit)
      : "memory");
}
template <bool kShared, int kBit>
__device__ __forceinline__ void take(const BitmapProduct& p, std::uint32_t& value, std::uint32_t& address,
                                     std::uint32_t mask) {
  if constexpr (kShared) {
    take_shared<kBit>(value, address, mask);
  } else {
    if ((mask >> kBit & 1U) != 0) value = __ldg(reinterpret_cast<const std::uint16_t*>(p.chunks) + address++);
  }
}

/// Columns 8 kPart .. 8 kPart + 7 of a lane's word as four pairs.
template <bool kShared, int kPart>
__device__ __forceinline__ void take_eight(const BitmapProduct& p, std::uint32_t (&pairs)[4],
                                           std::uint32_t& address, std::uint32_t mask) {
  std::uint32_t v[8] = {};
  take<kShared, 8 * kPart>(p, v[0], address, mask);
  take<kShared, 8 * kPart + 1>(p, v[1], address, mask);
  take<kShared, 8 * kPart + 2>(p, v[2], address, mask);
  take<kShared, 8 * kPart + 3>(p, v[3], address, mask);
  take<kShared, 8 * kPart + 4>(p, v[4], address, mask);
  take<kShared, 8 * kPart + 5>(p, v[5], address, mask);
  take<kShared, 8 * kPart + 6>(p, v[6], address, mask);
  take<kShared, 8 * kPart + 7>(p, v[7], address, mask);
#pragma unroll
  for (int i = 0; i < 4; ++i) pairs[i] = __byte_perm(v[2 * i], v[2 * i + 1], 0x5410);
}

/// A lane's words of a segment: their bits and the addresses of what comes next.
struct SegmentWords {
  std::uint32_t mask[4], address[4];
};

template <class Tile, bool kShared, int kPart>
__device__ __forceinline__ void multiply_part(const BitmapProduct& p, SegmentWords& words, std::uint32_t x_at,
                                              int lane, float4 (&sums)[Tile::kVectors]) {
  std::uint32_t w[4][4];
#pragma unroll
  for (int r = 0; r < 4; ++r) take_eight<kShared, kPart>(p, w[r], words.address[r], words.mask[r]);
#pragma unroll
  for (int n = 0; n < Tile::kTokenTiles; ++n) {
    const uint4 b = load_shared_16(x_at + ((kPart * Tile::kTokenTiles + n) * 32 + (lane ^ (2 * kPart))) * 16);
#pragma unroll
    for (int m = 0; m < Tile::kRowTiles; ++m) {
      const auto& low = w[2 * m];
      const auto& high = w[2 * m + 1];
      float4& sum = sums[m * Tile::kTokenTiles + n];
      multiply_add<typename Tile::T>(sum, {low[0], high[0], low[1], high[1]}, b.x, b.y);
      multiply_add<typename Tile::T>(sum, {low[2], high[2], low[3], high[3]}, b.z, b.w);
    }
  }
}

template <class Tile, bool kShared>
__device__ __forceinline__ void multiply_segment(const BitmapProduct& p, std::uint32_t words_at,
                                                 std::uint32_t x_at, int lane,
                                                 float4 (&sums)[Tile::kVectors]) {
  SegmentWords words;
#pragma unroll
  for (int r = 0; r < 4; ++r) {  // rows 8 r + lane / 4
    asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];"
                 : "=r"(words.mask[r]), "=r"(words.address[r])
                 : "r"(words_at + r * 256 + lane * 8)
                 : "memory");
  }
  multiply_part<Tile, kShared, 0>(p, words, x_at, lane, sums);
  multiply_part<Tile, kShared, 1>(p, words, x_at, lane, sums);
  multiply_part<Tile, kShared, 2>(p, words, x_at, lane, sums);
  multiply_part<Tile, kShared, 3>(p, words, x_at, lane, sums);
}

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    bitmap_product_kernel(const __grid_constant__ BitmapProduct p) {
  extern __shared__ __align__(128) std::byte shared_bytes[];
  constexpr int kStages = Tile::kStages;
  const std::uint32_t shared = shared_address(shared_bytes);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int block = static_cast<int>(blockIdx.x);
  const int first = p.work.first_unit(block);
  const int steps = p.work.first_unit(block + 1) - first;
  const int stage_bytes = Tile::stage_bytes(p.stage_vectors);
  const std::uint32_t stages = shared + kStages * Tile::kXBytes + warp * kStages * stage_bytes;
  int tile = first / p.row_segments;
  int segment = first % p.row_segments;
  NonzeroLoader<Tile> nonzeros(p, stages, first, steps);
  SegmentXLoader<Tile> x(p, shared, first, steps);
  unsigned in_shared = 0;  // bit s: stage s has its nonzeros
  const auto start = [&](int stage) {
    x.start(stage);
    const bool fits = nonzeros.start(stage);
    in_shared = (in_shared & ~(1U << stage)) | (fits ? 1U << stage : 0U);
    commit_copies();
  };
#pragma unroll 1
  for (int s = 0; s < kStages - 1; ++s) start(s);

  float4 sums[Tile::kVectors] = {};
  int stage = 0;
#pragma unroll 1
  for (int left = steps; left > 0; --left) {
    await_copies<kStages - 2>();
    __syncthreads();  // the segment is complete, and everyone is done with the one before
    start(stage == 0 ? kStages - 1 : stage - 1);
    const int row = tile * Tile::kRows + warp * Tile::kWarpRows;
    if (row < p.rows) {
      const std::uint32_t words_at = stages + stage * stage_bytes;
      const std::uint32_t x_at = shared + stage * Tile::kXBytes;
      if ((in_shared >> stage & 1U) != 0) {
        multiply_segment<Tile, true>(p, words_at, x_at, lane, sums);
      } else {
        multiply_segment<Tile, false>(p, words_at, x_at, lane, sums);
      }
    }
    if (++stage == kStages) stage = 0;
    if (++segment == p.row_segments || left == 1) {
      finish_tile<Tile>(p, tile, warp, row, sums);
      segment = 0;
      ++tile;
    }
  }
}

}  // namespace sluice::kernels::fused
