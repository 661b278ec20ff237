// y = epilogue(x W^T + bias) + residual over a quantised W, for up to 64 rows of x, on compute
// capability 8.0 and later. For *.cu files only.
//
// Tiling. A thread block has 256 rows of W, 32 for each of its 8 warps, and goes through their columns in
// steps of 128 bytes a row: 256 codes of 4 bits, or 128 of 8. A tile's columns may be divided among several
// thread blocks (StreamK); their sums are added in the order of columns by whichever warp is last.
//
// Fragments. A lane's part of half a row is 16 bytes in one piece, whatever columns these are: which columns
// meet in one step of the multiplier does not matter as long as x has them at the same places. So lane (g, t)
// has row g and bytes 16 t .. 16 t + 15, and takes them 8 columns (a unit) at a time, which are two steps of
// 16 columns for the warp. Four lanes' pairs of a step come from 4-bit codes as (c0, c4), (c1, c5): x is
// staged in that order, unit by unit: one 16-byte load of a lane is its B fragments of two steps.
//
// Pipeline. Each warp copies its own codes, each thread its units of x, one step ahead; one barrier a step.
#pragma once

#include "kernels/format/cuda/mma_sm80.cuh"
#include "kernels/format/quantised/quant_product.cuh"

namespace sluice::kernels::fused {

template <class T_, CodeKind kKind_, int kTokenTiles_>
struct QuantTile {
  using T = T_;
  static constexpr CodeKind kKind = kKind_;
  static constexpr bool kHasScaled = kKind != CodeKind::kBytes && ElementType<T>::kDType == DType::kF16;
  static constexpr int kTokenTiles = kTokenTiles_;  // of 8 rows of x
  static constexpr int kBlocks = 2;                 // on a multiprocessor
  static constexpr int kWarps = 8, kThreads = 32 * kWarps;
  static constexpr int kRowTiles = 2;  // of 16 rows of W, of a warp
  static constexpr int kWarpRows = 16 * kRowTiles, kRows = kWarps * kWarpRows;
  // A step is one or two halves of 64 bytes a row, of which each lane has 16; it is one where x takes much
  // memory.
  static constexpr int kHalfBytes = 64, kUnitBytes = 2 * kHalfBytes;
  static constexpr int kHalves = kTokenTiles <= 4 ? 2 : 1, kStepBytes = kHalves * kHalfBytes;
  static constexpr int kHalfCols = kHalfBytes * (kKind == CodeKind::kBytes ? 1 : 2),
                       kCols = kHalves * kHalfCols;
  static constexpr int kUnits = kHalfCols / 32;  // of a lane and half
  static constexpr int kTurn = 8 / kUnits;       // lanes of unit w are exchanged by XOR with kTurn * w
  static constexpr int kXUnits = kCols / 8 * kTokenTiles * 8;
  static constexpr int kXUnitsPerThread = (kXUnits + kThreads - 1) / kThreads;
  static constexpr int kVectors = kRowTiles * kTokenTiles;           // of a lane's sums
  static constexpr int kGroups = kKind == CodeKind::kBytes ? 1 : 4;  // most of a row in a step

  // Shared memory, all of it twice: a step is read while the next one arrives.
  static constexpr int kStages = 2;
  static constexpr int kCodeBytes = kWarpRows * kStepBytes;  // of a warp
  static constexpr int kParamBytes = kWarpRows * kGroups * 4;
  static constexpr int kXHalfBytes = kXUnits / kHalves * 16, kXBytes = kHalves * kXHalfBytes;
  static constexpr int kParamsAt = kWarps * kStages * kCodeBytes;
  static constexpr int kXAt = kParamsAt + kWarps * kStages * kParamBytes;
  static constexpr int kSharedBytes = kXAt + kStages * kXBytes;

  static constexpr int kStepsOfUnit = kUnitBytes / kStepBytes;
  __device__ static int steps_of_tile(const QuantProduct& p) { return p.work.per_tile * kStepsOfUnit; }
};

/// The codes and parameters of one warp on their way into shared memory: a cursor over its thread block's
/// steps.
template <class Tile>
class CodeLoader {
 public:
  using T = typename Tile::T;

  __device__ CodeLoader(const QuantProduct& p, std::uint32_t shared, int first, int steps)
      : p_(p),
        policy_(evict_first_policy()),
        lane_(static_cast<int>(threadIdx.x) % 32),
        warp_(static_cast<int>(threadIdx.x) / 32),
        codes_to_(shared + warp_ * Tile::kStages * Tile::kCodeBytes + lane_ * 16),
        params_to_(shared + Tile::kParamsAt + warp_ * Tile::kStages * Tile::kParamBytes +
                   lane_ * (Tile::kGroups * 4)),
        left_(steps),
        tile_(first / Tile::steps_of_tile(p)),
        step_(first % Tile::steps_of_tile(p)) {
    enter_tile();
  }

  /// Starts the copies of the next step's codes into its stage, and the loads of its parameters into
  /// registers.
  __device__ void start(int stage) {
    if (left_ == 0) return;
    if (rows_ > 0) {
      copy_codes(stage);
      load_params();
    }
    --left_;
    if (++step_ == Tile::steps_of_tile(p_)) {
      step_ = 0;
      ++tile_;
      if (left_ > 0) enter_tile();
    }
  }

  /// Stores the parameters that start() has loaded. Returns how the codes of that step decode: the way that
  /// serves all groups of this warp's rows.
  __device__ DecodeWay store_params(int stage) {
    const std::uint32_t to = params_to_ + stage * Tile::kParamBytes;
    if constexpr (Tile::kKind == CodeKind::kBytes) {
      store_shared_4(to, params_[0]);
      return DecodeWay::kDifference;
    } else {
      constexpr bool kMinimum = Tile::kKind == CodeKind::kNibblesFromMinimum;
      unsigned way = 0;
#pragma unroll
      for (int g = 0; g < Tile::kGroups; ++g)
        way = max(way, static_cast<unsigned>(decode_way<T>(params_[g])));
      const auto all = static_cast<DecodeWay>(__reduce_max_sync(0xFFFFFFFFU, way));
      if (all == DecodeWay::kScaledNibbles) {
#pragma unroll
        for (int g = 0; g < Tile::kGroups; ++g) params_[g] = scale_nibbles<kMinimum>(params_[g]);
      }
      store_shared_16(to, make_uint4(params_[0], params_[1], params_[2], params_[3]));
      return all;
    }
  }

 private:
  static constexpr int kCopies = Tile::kWarpRows / 8;

  __device__ void enter_tile() {
    const int row = tile_ * Tile::kRows + warp_ * Tile::kWarpRows;
    const int first = row / 128 * 128;
    rows_ = min(p_.rows - row, Tile::kWarpRows);
    if (rows_ <= 0) return;
    const std::byte* block = p_.weight + row / 128 * p_.block_bytes;
    codes_ = block + std::int64_t{row - first} * p_.row_bytes;
#pragma unroll
    for (int i = 0; i < kCopies; ++i)  // no row beyond the last one is read
      row_at_[i] = static_cast<std::uint32_t>(min(i * 8 + lane_ / 4, rows_ - 1) * p_.row_bytes);
    const int block_rows = min(p_.rows - first, 128);
    row_params_ = block + std::int64_t{block_rows} * p_.row_bytes +
                  std::int64_t{row - first + min(lane_, rows_ - 1)} * p_.param_bytes;
  }

  __device__ void copy_codes(int stage) {
    const int first = step_ * Tile::kStepBytes + lane_ % 4 * 16;
    const std::uint32_t to = codes_to_ + stage * Tile::kCodeBytes;
#pragma unroll
    for (int half = 0; half < Tile::kHalves; ++half) {
      // Beyond the row its end again, which meets zeros of x: those of bytes 0 times a scale may be infinite.
      const std::byte* from = codes_ + min(first + half * Tile::kHalfBytes, p_.row_bytes - 16);
#pragma unroll
      for (int i = 0; i < kCopies; ++i)
        copy_async<L2Fetch::k128Bytes>(to + (half * kCopies + i) * 512, from + row_at_[i], 16, policy_);
    }
  }

  /// A lane has one row's parameters, which stay in registers while the step before is computed.
  __device__ void load_params() {
    const int group = step_ * Tile::kCols >> p_.group_shift;
    const int count = max(1, Tile::kCols >> p_.group_shift);
    const int left = p_.num_groups - group;
    if constexpr (Tile::kKind == CodeKind::kNibblesFromMinimum) {
      const auto* from = reinterpret_cast<const std::uint32_t*>(row_params_) + group;
      if (count == 4 && p_.params_are_aligned) {
        const uint4 v = __ldg(reinterpret_cast<const uint4*>(from));
        params_[0] = v.x;
        params_[1] = v.y;
        params_[2] = v.z;
        params_[3] = v.w;
      } else {
        load_each(from, min(count, left));
      }
    } else {
      load_each(reinterpret_cast<const std::uint16_t*>(row_params_) + group, min(count, left));
    }
  }
  template <class Stored>
  __device__ void load_each(const Stored* from, int count) {
#pragma unroll
    for (int g = 0; g < Tile::kGroups; ++g) params_[g] = g < count ? __ldg(from + g) : 0;
  }

  const QuantProduct& p_;
  const std::uint64_t policy_;
  const int lane_, warp_;
  const std::uint32_t codes_to_, params_to_;
  int left_, tile_, step_;
  int rows_ = 0;  // of the warp in this tile; none if not positive
  const std::byte* codes_ = nullptr;
  const std::byte* row_params_ = nullptr;
  std::uint32_t row_at_[kCopies] = {};
  std::uint32_t params_[Tile::kGroups] = {};
};

/// The columns of x that meet the steps of one thread block.
template <class Tile>
class XLoader {
 public:
  using T = typename Tile::T;

  __device__ XLoader(const QuantProduct& p, std::uint32_t shared, int first, int steps)
      : p_(p), to_(shared + Tile::kXAt), left_(steps), step_(first % Tile::steps_of_tile(p)) {}

  /// Starts the copies of the next step's columns.
  __device__ void start(int stage) {
    if (left_ == 0) return;
#pragma unroll
    for (int i = 0; i < Tile::kXUnitsPerThread; ++i) {
      if (!has_unit(i)) break;
      copy_unit(i, to_ + stage * Tile::kXBytes + place(i));
    }
    --left_;
    if (++step_ == Tile::steps_of_tile(p_)) step_ = 0;
  }

  /// Brings this thread's units, which have arrived, into the order of the fragments.
  __device__ void arrange(int stage) const {
    if constexpr (Tile::kKind != CodeKind::kBytes) {
#pragma unroll
      for (int i = 0; i < Tile::kXUnitsPerThread; ++i) {
        if (!has_unit(i)) break;
        const std::uint32_t at = to_ + stage * Tile::kXBytes + place(i);
        const uint4 v = load_shared_16(at);
        store_shared_16(at, {__byte_perm(v.x, v.z, 0x5410), __byte_perm(v.x, v.z, 0x7632),
                             __byte_perm(v.y, v.w, 0x5410), __byte_perm(v.y, v.w, 0x7632)});
      }
    }
  }

 private:
  static constexpr int kUnitsPerRow = Tile::kCols / 8, kUnitsPerHalf = kUnitsPerRow / Tile::kHalves;

  /// Unit i of this thread: row n of x and unit j of that row's columns, so that neighbours read neighbours.
  __device__ static int unit(int i) { return i * Tile::kThreads + static_cast<int>(threadIdx.x); }
  __device__ static bool has_unit(int i) {
    return Tile::kXUnits % Tile::kThreads == 0 || unit(i) < Tile::kXUnits;
  }
  __device__ static std::uint32_t place(int i) {
    const int n = unit(i) / kUnitsPerRow;
    const int half = unit(i) % kUnitsPerRow / kUnitsPerHalf;
    const int j = unit(i) % kUnitsPerHalf;
    const int w = j % Tile::kUnits;
    const int lane = (n % 8 * 4 + j / Tile::kUnits) ^ (w * Tile::kTurn);
    return static_cast<std::uint32_t>(half * Tile::kXHalfBytes +
                                      ((w * Tile::kTokenTiles + n / 8) * 32 + lane) * 16);
  }
  __device__ void copy_unit(int i, std::uint32_t to) const {
    const int n = unit(i) / kUnitsPerRow;
    const int col = step_ * Tile::kCols + unit(i) % kUnitsPerRow * 8;
    const T* row = static_cast<const T*>(p_.x) + n * p_.x_stride;
    const bool inside = n < p_.out.tokens && col < p_.cols;
    if (!inside || (p_.x_is_aligned && col + 8 <= p_.cols)) {
      // A copy of nothing names an aligned address too.
      copy_async<L2Fetch::k128Bytes>(to, inside ? static_cast<const void*>(row + col) : p_.weight,
                                     inside ? 16 : 0);
    } else {
      store_shared_16(to, gather_unit(row, col, p_.cols));
    }
  }

  const QuantProduct& p_;
  const std::uint32_t to_;
  int left_, step_;
};

template <class Tile, DecodeWay kWay>
__device__ void multiply_half(std::uint32_t codes_at, std::uint32_t params_at, std::uint32_t x_at, int lane,
                              float4 (&sums)[Tile::kVectors]) {
  using T = typename Tile::T;
  std::uint32_t codes[2 * Tile::kRowTiles][4];
  std::uint32_t params[2 * Tile::kRowTiles];
#pragma unroll
  for (int r = 0; r < 2 * Tile::kRowTiles; ++r) {  // rows 8 r + lane / 4
    const uint4 v = load_shared_16(codes_at + r * 512 + lane * 16);
    codes[r][0] = v.x;
    codes[r][1] = v.y;
    codes[r][2] = v.z;
    codes[r][3] = v.w;
    params[r] = load_shared_4(params_at + r * (8 * Tile::kGroups * 4));
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
        decode_unit<Tile, kWay>(codes[r], w, GroupPair<T>(params[r]), pairs);
#pragma unroll
        for (int i = 0; i < 4; ++i) a[m][i / 2][i % 2 * 2 + half] = pairs[i];
      }
    }
    constexpr int kTogether = Tile::kTokenTiles < 2 ? 1 : 2;
#pragma unroll
    for (int first = 0; first < Tile::kTokenTiles; first += kTogether) {
      uint4 b[kTogether];
#pragma unroll
      for (int n = 0; n < kTogether; ++n)
        b[n] = load_shared_16(x_at +
                              ((w * Tile::kTokenTiles + first + n) * 32 + (lane ^ (w * Tile::kTurn))) * 16);
#pragma unroll
      for (int k = 0; k < 2; ++k) {  // the same sums again as late as possible
#pragma unroll
        for (int n = 0; n < kTogether; ++n) {
#pragma unroll
          for (int m = 0; m < Tile::kRowTiles; ++m)
            multiply_add<T>(sums[m * Tile::kTokenTiles + first + n], a[m][k], k == 0 ? b[n].x : b[n].z,
                            k == 0 ? b[n].y : b[n].w);
        }
      }
    }
  }
}

template <class Tile, DecodeWay kWay>
__device__ void multiply_step(std::uint32_t codes_at, std::uint32_t params_at, int params_of_half,
                              std::uint32_t x_at, int lane, float4 (&sums)[Tile::kVectors]) {
#pragma unroll
  for (int half = 0; half < Tile::kHalves; ++half)
    multiply_half<Tile, kWay>(codes_at + half * (Tile::kCodeBytes / Tile::kHalves),
                              params_at + half * params_of_half, x_at + half * Tile::kXHalfBytes, lane, sums);
}

template <class Tile>
__device__ void multiply_step_by(DecodeWay way, std::uint32_t codes_at, std::uint32_t params_at,
                                 int params_of_half, std::uint32_t x_at, int lane,
                                 float4 (&sums)[Tile::kVectors]) {
  if constexpr (Tile::kHasScaled) {
    if (way == DecodeWay::kScaledNibbles)
      return multiply_step<Tile, DecodeWay::kScaledNibbles>(codes_at, params_at, params_of_half, x_at, lane,
                                                            sums);
  }
  if constexpr (Tile::kKind == CodeKind::kNibblesFromMinimum) {
    if (way == DecodeWay::kDefinition)
      return multiply_step<Tile, DecodeWay::kDefinition>(codes_at, params_at, params_of_half, x_at, lane,
                                                         sums);
  }
  multiply_step<Tile, DecodeWay::kDifference>(codes_at, params_at, params_of_half, x_at, lane, sums);
}

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    quant_product_kernel(const __grid_constant__ QuantProduct p) {
  extern __shared__ __align__(128) std::byte shared_bytes[];
  const std::uint32_t shared = shared_address(shared_bytes);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int block = static_cast<int>(blockIdx.x);
  const int first = p.work.first_unit(block) * Tile::kStepsOfUnit;
  const int steps = p.work.first_unit(block + 1) * Tile::kStepsOfUnit - first;
  int tile = first / Tile::steps_of_tile(p);
  int step = first % Tile::steps_of_tile(p);
  CodeLoader<Tile> codes(p, shared, first, steps);
  XLoader<Tile> x(p, shared, first, steps);
  codes.start(0);
  x.start(0);
  commit_copies();

  float4 sums[Tile::kVectors] = {};
  const std::uint32_t codes_at = shared + warp * Tile::kStages * Tile::kCodeBytes;
  // Of two groups in a half, lanes t = 2 and 3 have the second; of less than one, both halves have the same.
  const int half_groups = Tile::kHalfCols >> p.group_shift;
  const int params_of_half = half_groups * 4;
  const std::uint32_t params_at = shared + Tile::kParamsAt + warp * Tile::kStages * Tile::kParamBytes +
                                  lane / 4 * (Tile::kGroups * 4) + (half_groups == 2 ? lane % 4 / 2 * 4 : 0);
  int stage = 0;
#pragma unroll 1
  for (int left = steps; left > 0; --left) {
    await_copies<0>();
    const DecodeWay way = codes.store_params(stage);
    x.arrange(stage);
    __syncthreads();  // the step is complete, and everyone is done with the one before
    codes.start(stage ^ 1);
    x.start(stage ^ 1);
    commit_copies();
    const int row = tile * Tile::kRows + warp * Tile::kWarpRows;
    if (row < p.rows) {
      const std::uint32_t c = codes_at + stage * Tile::kCodeBytes;
      const std::uint32_t params = params_at + stage * Tile::kParamBytes;
      const std::uint32_t from_x = shared + Tile::kXAt + stage * Tile::kXBytes;
      multiply_step_by<Tile>(way, c, params, params_of_half, from_x, lane, sums);
    }
    stage ^= 1;
    if (++step == Tile::steps_of_tile(p) || left == 1) {
      finish_tile<Tile>(p, tile, warp, row, sums);
      step = 0;
      ++tile;
    }
  }
}

}  // namespace sluice::kernels::fused
