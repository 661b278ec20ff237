// y = epilogue(x W^T + bias) + residual over a quantised W, for up to 64 rows of x, on compute
// capability 8.0 and later. For *.cu files only.
//
// Tiling. A thread block has 256 rows of W, 32 for each of its 8 warps, and goes through their columns in
// steps of 128 bytes a row: 256 codes of 4 bits, or 128 of 8. A tile's columns may be divided among several
// thread blocks (StreamK); their sums are added in the order of columns by whichever warp is last.
//
// Fragments. The stored order of codes (FORMAT.md) is made for them: 16 bytes of a row are a row of what
// ldmatrix takes, and a lane's word decodes to its pairs of two steps of 16 columns (of 8-bit codes: of one).
// x comes as it is, and by ldmatrix too. Rows of 16 bytes of both are put where no eight of a matrix meet in
// a bank.
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
  static constexpr int kUnits = kHalfCols / 32;  // of 32 columns, of a half
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
        codes_to_(shared + warp_ * Tile::kStages * Tile::kCodeBytes +
                  (lane_ / 4 * 4 + (lane_ % 4 ^ lane_ / 8)) * 16),
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
    codes_ = p_.block(row / 128) + std::int64_t{row - first} * p_.row_bytes;
#pragma unroll
    for (int i = 0; i < kCopies; ++i)  // no row beyond the last one is read
      row_at_[i] = static_cast<std::uint32_t>(min(i * 8 + lane_ / 4, rows_ - 1) * p_.row_bytes);
    row_params_ = p_.params(row / 128) + (row - first + min(lane_, rows_ - 1)) * p_.param_bytes;
    group_bytes_ = p_.group_bytes(row / 128);
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
    const std::byte* const from = row_params_ + std::int64_t{group} * group_bytes_;
    using Stored =
        std::conditional_t<Tile::kKind == CodeKind::kNibblesFromMinimum, std::uint32_t, std::uint16_t>;
#pragma unroll
    for (int g = 0; g < Tile::kGroups; ++g)
      params_[g] = g < min(count, left) ? __ldg(reinterpret_cast<const Stored*>(from + g * group_bytes_)) : 0;
  }

  const QuantProduct& p_;
  const std::uint64_t policy_;
  const int lane_, warp_;
  const std::uint32_t codes_to_, params_to_;
  int left_, tile_, step_;
  int rows_ = 0;  // of the warp in this tile; none if not positive
  const std::byte* codes_ = nullptr;
  const std::byte* row_params_ = nullptr;
  int group_bytes_ = 0;
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
    const int matrix = (j / 4 * Tile::kTokenTiles + n / 8) * 4 + j % 4;
    return static_cast<std::uint32_t>(half * Tile::kXHalfBytes + matrix * 128 + (n % 8 ^ j % 8) * 16);
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

/// What of a lane's codes in half a step: words by rows (8 r + lane / 4) and chunks of 16 bytes.
template <class Tile>
__device__ __forceinline__ void load_codes(std::uint32_t codes_at, int lane,
                                           std::uint32_t (&codes)[2 * Tile::kRowTiles][4]) {
  const std::uint32_t at = codes_at + lane / 8 % 2 * 512 + (lane % 8 * 4 + (lane / 16 ^ lane % 8 / 2)) * 16;
#pragma unroll
  for (int m = 0; m < Tile::kRowTiles; ++m) {
#pragma unroll
    for (int two = 0; two < 2; ++two) {  // chunks
      std::uint32_t words[4];
      load_matrices(words, (at ^ two * 32) + m * 1024);
#pragma unroll
      for (int i = 0; i < 4; ++i) codes[2 * m + i % 2][2 * two + i / 2] = words[i];
    }
  }
}

/// `params_of_two`: from the parameters of two chunks of 16 bytes to the next ones'.
template <class Tile, DecodeWay kWay>
__device__ void multiply_half(std::uint32_t codes_at, std::uint32_t params_at, int params_of_two,
                              std::uint32_t x_at, int lane, float4 (&sums)[Tile::kVectors]) {
  using T = typename Tile::T;
  std::uint32_t codes[2 * Tile::kRowTiles][4];
  std::uint32_t params[2 * Tile::kRowTiles];
  load_codes<Tile>(codes_at, lane, codes);
  const std::uint32_t x_of_lane = lane / 8 * 128 + (lane % 8 ^ lane / 8) * 16;
#pragma unroll
  for (int w = 0; w < Tile::kUnits; ++w) {
    if (w % 2 == 0) {
#pragma unroll
      for (int r = 0; r < 2 * Tile::kRowTiles; ++r)
        params[r] = load_shared_4(params_at + r * (8 * Tile::kGroups * 4) + w / 2 * params_of_two);
    }
    std::uint32_t a[Tile::kRowTiles][2][4];
#pragma unroll
    for (int m = 0; m < Tile::kRowTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        std::uint32_t pairs[4];
        const int r = 2 * m + half;
        decode_turn<Tile, kWay>(codes[r], w, GroupPair<T>(params[r]), pairs);
#pragma unroll
        for (int i = 0; i < 4; ++i) a[m][i / 2][i % 2 * 2 + half] = pairs[i];
      }
    }
    constexpr int kTogether = Tile::kTokenTiles < 2 ? 1 : 2;
#pragma unroll
    for (int first = 0; first < Tile::kTokenTiles; first += kTogether) {
      std::uint32_t b[kTogether][4];
#pragma unroll
      for (int n = 0; n < kTogether; ++n)
        load_matrices(b[n], x_at + (w * Tile::kTokenTiles + first + n) * 512 + (x_of_lane ^ (w % 2 * 64)));
#pragma unroll
      for (int k = 0; k < 2; ++k) {  // the same sums again as late as possible
#pragma unroll
        for (int n = 0; n < kTogether; ++n) {
#pragma unroll
          for (int m = 0; m < Tile::kRowTiles; ++m)
            multiply_add<T>(sums[m * Tile::kTokenTiles + first + n], a[m][k], b[n][2 * k], b[n][2 * k + 1]);
        }
      }
    }
  }
}

template <class Tile, DecodeWay kWay>
__device__ void multiply_step(std::uint32_t codes_at, std::uint32_t params_at, int params_of_half,
                              std::uint32_t x_at, int lane, float4 (&sums)[Tile::kVectors]) {
  const int params_of_two = params_of_half >= 8 ? 4 : 0;
#pragma unroll
  for (int half = 0; half < Tile::kHalves; ++half)
    multiply_half<Tile, kWay>(codes_at + half * (Tile::kCodeBytes / Tile::kHalves),
                              params_at + half * params_of_half, params_of_two,
                              x_at + half * Tile::kXHalfBytes, lane, sums);
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
  // Two groups, one, or less, which both halves share.
  const int params_of_half = (Tile::kHalfCols >> p.group_shift) * 4;
  const std::uint32_t params_at =
      shared + Tile::kParamsAt + warp * Tile::kStages * Tile::kParamBytes + lane / 4 * (Tile::kGroups * 4);
  int stage = 0;
#pragma unroll 1
  for (int left = steps; left > 0; --left) {
    await_copies<0>();
    const DecodeWay way = codes.store_params(stage);
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
