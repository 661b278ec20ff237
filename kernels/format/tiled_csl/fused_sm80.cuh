// y = epilogue(x W^T + bias) + residual over a Tiled-CSL W, for up to 128 rows of x: load sparse, compute
// dense, as Flash-LLM does (Xia et al., VLDB 2023), for compute capability 8.0 and later. For *.cu files
// only.
//
// Tiling. A thread block of 4 warps goes through tiles of 128 x 64 in the order in which they are stored, 32
// rows for each warp. A row of tiles may be divided among several thread blocks (StreamK).
//
// Overlap. Lists wait in registers, kDepth tiles ahead; dense tiles are double-buffered. While the tensor
// cores read one, the other is cleared and the next list is on its way; then the list that has arrived is
// scattered.
#pragma once

#include "kernels/format/cuda/fused_epilogue.cuh"
#include "kernels/format/cuda/mma_sm80.cuh"

namespace sluice::kernels::fused {

struct CslProduct {
  const uint4* lists;           // of all tiles
  const std::uint32_t* starts;  // of each tile's list, in vectors of 4 words, and the end of the last
  const void* x;
  std::int64_t x_stride;
  std::int32_t rows, cols;  // of W
  bool x_is_aligned;        // rows of x start at multiples of 16 bytes
  StreamK work;
  Exchange exchange;
  Output out;
};

template <class T_, int kTokenTiles_, int kVectors_, int kDepth_, int kBlocks_>
struct CslTile {
  using T = T_;
  static constexpr int kTokenTiles = kTokenTiles_;  // of 8 rows of x
  static constexpr int kVectors = kVectors_;        // of a list, for each thread; what is longer is read late
  static constexpr int kDepth = kDepth_;
  static constexpr int kBlocks = kBlocks_;  // on a multiprocessor
  static constexpr int kWarps = 4, kThreads = 32 * kWarps;
  static constexpr int kRows = 128, kCols = 64, kRowBytes = 2 * kCols;
  static constexpr int kRowTiles = 2;  // of 16 rows, of a warp
  static constexpr int kWBytes = kRows * kRowBytes;
  static constexpr int kXUnits = kTokenTiles * 8 * 8;  // of 8 columns
  static constexpr int kXBytes = kXUnits * 16;
  static constexpr int kXStages = 3;
  static constexpr int kXAt = 2 * kWBytes;
  static constexpr int kSharedBytes = kXAt + kXStages * kXBytes;
};

/// A tile's list on its way: kVectors vectors of each thread, and where the rest is.
template <int kVectors>
struct CslList {
  uint4 words[kVectors];
  std::uint32_t start = 0, count = 0;
};

template <class Tile>
class CslLoader {
 public:
  using T = typename Tile::T;
  using List = CslList<Tile::kVectors>;

  __device__ CslLoader(const CslProduct& p, std::uint32_t shared, int unit)
      : p_(p), thread_(static_cast<int>(threadIdx.x)), x_to_(shared + Tile::kXAt), unit_(unit) {
    column_ = unit % p.work.per_tile * Tile::kCols;
    start_ = __ldg(p.starts + unit);
    end_ = __ldg(p.starts + unit + 1);
  }

  /// Starts the loads of the next tile's list; of none if `exists` is false.
  __device__ void load_list(bool exists, List& list) {
    list.start = start_;
    list.count = exists ? end_ - start_ : 0;
    const uint4* from = p_.lists + start_ + thread_;
#pragma unroll
    for (int v = 0; v < Tile::kVectors; ++v)
      if (static_cast<std::uint32_t>(v * Tile::kThreads + thread_) < list.count)
        list.words[v] = __ldcs(from + v * Tile::kThreads);
    ++unit_;
    start_ = end_;
    if (unit_ < p_.work.units()) end_ = __ldg(p_.starts + unit_ + 1);
  }

  /// Stores the words of a list, whose loads were started, into a cleared tile.
  __device__ void scatter(const List& list, std::uint32_t tile) const {
#pragma unroll
    for (int v = 0; v < Tile::kVectors; ++v)
      if (static_cast<std::uint32_t>(v * Tile::kThreads + thread_) < list.count) scatter(list.words[v], tile);
    for (std::uint32_t v = Tile::kVectors * Tile::kThreads + thread_; v < list.count; v += Tile::kThreads)
      scatter(__ldcs(p_.lists + list.start + v), tile);
  }

  __device__ void clear(std::uint32_t tile) const {
#pragma unroll
    for (int i = 0; i < Tile::kWBytes / 16 / Tile::kThreads; ++i)
      store_shared_16(tile + (i * Tile::kThreads + thread_) * 16, make_uint4(0, 0, 0, 0));
  }

  /// Starts the copies of the columns of x that meet the next tile: rows of 128 bytes, chunks exchanged as
  /// W's.
  __device__ void copy_x(bool exists, int stage) {
    if (exists) {
#pragma unroll
      for (int i = 0; i < (Tile::kXUnits + Tile::kThreads - 1) / Tile::kThreads; ++i) {
        const int unit = i * Tile::kThreads + thread_;
        if (Tile::kXUnits % Tile::kThreads != 0 && unit >= Tile::kXUnits) break;
        copy_unit(unit / 8, unit % 8, x_to_ + stage * Tile::kXBytes);
      }
      column_ += Tile::kCols;
      if (column_ >= p_.work.per_tile * Tile::kCols) column_ = 0;
    }
    commit_copies();
  }

 private:
  __device__ static void scatter(uint4 words, std::uint32_t tile) {
    for (const std::uint32_t word : {words.x, words.y, words.z, words.w})
      asm volatile("st.shared.u16 [%0], %1;" ::"r"(tile + (word >> 16)), "h"(static_cast<std::uint16_t>(word))
                   : "memory");
  }

  __device__ void copy_unit(int n, int j, std::uint32_t stage) const {
    const int col = column_ + j * 8;
    const std::uint32_t to = stage + n * Tile::kRowBytes + ((j ^ n % 8) * 16);
    const T* row = static_cast<const T*>(p_.x) + n * p_.x_stride;
    const bool inside = n < p_.out.tokens && col < p_.cols;
    if (!inside || (p_.x_is_aligned && col + 8 <= p_.cols)) {
      // A copy of nothing names an aligned address too.
      copy_async<L2Fetch::k128Bytes>(to, inside ? static_cast<const void*>(row + col) : p_.lists,
                                     inside ? 16 : 0);
    } else {
      store_shared_16(to, gather_unit(row, col, p_.cols));
    }
  }

  const CslProduct& p_;
  const int thread_;
  const std::uint32_t x_to_;
  int unit_;
  int column_ = 0;
  std::uint32_t start_ = 0, end_ = 0;
};

/// sums += the warp's rows of a dense tile times x.
template <class Tile>
__device__ void multiply_tile(std::uint32_t tile, std::uint32_t x,
                              float4 (&sums)[Tile::kRowTiles * Tile::kTokenTiles]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  // Lane l names row l mod 8 of matrix l / 8. Of W: rows 0..7, rows 8..15, and both again 8 columns on; of x:
  // 8 columns each, one after the other. A row's number mod 8 is the lane's.
  const std::uint32_t w_row = tile + (warp * 32 + lane % 16) * Tile::kRowBytes;
  const std::uint32_t x_row = x + lane % 8 * Tile::kRowBytes;
#pragma unroll
  for (int half = 0; half < 2; ++half) {  // 32 columns
    std::uint32_t a[Tile::kRowTiles][2][4];
#pragma unroll
    for (int m = 0; m < Tile::kRowTiles; ++m)
#pragma unroll
      for (int k = 0; k < 2; ++k)
        load_matrices(a[m][k],
                      w_row + m * 16 * Tile::kRowBytes + ((half * 4 + k * 2 + lane / 16) ^ lane % 8) * 16);
#pragma unroll
    for (int n = 0; n < Tile::kTokenTiles; ++n) {
      std::uint32_t b[4];
      load_matrices(b, x_row + n * 8 * Tile::kRowBytes + ((half * 4 + lane / 8) ^ lane % 8) * 16);
#pragma unroll
      for (int m = 0; m < Tile::kRowTiles; ++m) {
        multiply_add<typename Tile::T>(sums[m * Tile::kTokenTiles + n], a[m][0], b[0], b[1]);
        multiply_add<typename Tile::T>(sums[m * Tile::kTokenTiles + n], a[m][1], b[2], b[3]);
      }
    }
  }
}

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    csl_product_kernel(const __grid_constant__ CslProduct p) {
  extern __shared__ __align__(128) std::byte shared_bytes[];
  const std::uint32_t shared = shared_address(shared_bytes);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int first = p.work.first_unit(static_cast<int>(blockIdx.x));
  int left = p.work.first_unit(static_cast<int>(blockIdx.x) + 1) - first;
  int tile = first / p.work.per_tile;
  int step = first % p.work.per_tile;

  // Lists of the steps after this one are in registers, x of this and the next step in shared memory.
  CslLoader<Tile> loader(p, shared, first);
  typename CslLoader<Tile>::List lists[Tile::kDepth];
  loader.copy_x(true, 0);
  loader.copy_x(left > 1, 1);
  loader.load_list(true, lists[0]);
  loader.clear(shared);
  __syncthreads();
  loader.scatter(lists[0], shared);
#pragma unroll
  for (int d = 0; d < Tile::kDepth - 1; ++d) loader.load_list(left > d + 1, lists[d]);

  float4 sums[Tile::kRowTiles * Tile::kTokenTiles] = {};
  int x_stage = 0;
  std::uint32_t now = shared, next = shared + Tile::kWBytes;
  await_copies<1>();
  __syncthreads();
#pragma unroll 1
  for (; left > 0; --left) {
    // The tile is complete, and everyone is done with the other one.
    loader.load_list(left > Tile::kDepth, lists[Tile::kDepth - 1]);
    loader.copy_x(left > 2, x_stage == 0 ? 2 : x_stage - 1);
    if (left > 1) loader.clear(next);
    multiply_tile<Tile>(now, shared + Tile::kXAt + x_stage * Tile::kXBytes, sums);
    await_copies<1>();
    __syncthreads();
    loader.scatter(lists[0], next);
#pragma unroll
    for (int d = 0; d + 1 < Tile::kDepth; ++d) lists[d] = lists[d + 1];
    const std::uint32_t done = now;
    now = next;
    next = done;
    x_stage = x_stage == 2 ? 0 : x_stage + 1;
    if (++step == p.work.per_tile || left == 1) {
      const int row = tile * Tile::kRows + warp * 32;
      finish_tile<Tile>(p, tile, warp, row, sums);
      step = 0;
      ++tile;
    }
    __syncthreads();
  }
}

}  // namespace sluice::kernels::fused
