// Expansion of pairs24: a block for a unit, a warp for a strip. The unit's bytes come to shared memory all at
// once; each lane takes the words of its quads from its list and puts their columns in place, two steps (128
// bytes of a row) at a time, entries go over them, and the warp writes them out as whole lines.
#include <algorithm>

#include "kernels/device/cuda/check.h"
#include "kernels/device/cuda/copy_async.cuh"
#include "kernels/format/cuda/expand_cuda.cuh"
#include "kernels/format/pairs24/unit.h"

namespace sluice::kernels::detail {
namespace {

constexpr int kThreads = kPairsStrips * kPairsLanes;
constexpr int kUnitRows = kPairsTileRows, kUnitCols = kPairsTileCols;
constexpr int kStageSteps = 2, kStageCols = kStageSteps * kPairsStepCols;
constexpr int kRowVectors = kStageCols / kVector;
constexpr int kRowsAtOnce = kPairsLanes / kRowVectors;  // that a warp writes

struct Params {
  const uint4* units;          // of the whole matrix
  const std::uint32_t* table;  // from the first unit to expand on
  ExpandedRows out;
  std::int64_t num_rows;
  std::uint32_t row_units;
  std::uint32_t shared_vectors;  // a larger unit is read where it is stored
};

/// 16 rows of two steps. Rows of 128 bytes; a row's four parts of 32 bytes are swizzled, so that neither the
/// stores of quads nor the loads of vectors meet in a bank.
struct Stage {
  std::uint16_t values[kPairsStripRows][kStageCols];
};
constexpr int kStageParts = 4, kStagePartCols = kStageCols / kStageParts;

/// Selectors of bytes for a quad's four columns, by its metadata. Columns 0 and 1 (low half) choose from the
/// pair and what is left, columns 2 and 3 from the pair and zero.
__device__ std::uint32_t quad_selectors(std::uint32_t metadata) {
  const std::uint32_t first = 8 * (metadata & 3U);
  const std::uint32_t second = 8 * (metadata >> 2);
  std::uint32_t selectors = 0x44447654U;
  selectors = (selectors & ~(0xFFU << first)) | 0x10U << first;
  return (selectors & ~(0xFFU << second)) | 0x32U << second;
}
/// Bytes of `low` (0..3) and `high` (4..7); __byte_perm would mask the selectors first.
__device__ std::uint32_t select_bytes(std::uint32_t low, std::uint32_t high, std::uint32_t selectors) {
  std::uint32_t bytes;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(bytes) : "r"(low), "r"(high), "r"(selectors));
  return bytes;
}

/// One store of 16 bytes: nvcc splits an assignment here.
__device__ void store_whole(std::uint16_t* to, const uint4& v) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
               : "memory");
}

/// The words of one lane in the order of their steps.
struct LaneList {
  const std::byte* unit;
  std::uint32_t at;  // bytes from the unit's start

  /// The next word if `bit` of `stored` says that there is one, else zero.
  __device__ std::uint32_t take(std::uint32_t stored, int bit) {
    std::uint32_t word = 0;
    const bool is_stored = (stored >> bit & 1U) != 0;
    if (is_stored) word = *reinterpret_cast<const std::uint32_t*>(unit + at);
    at += is_stored ? kPairsListStride : 0;
    return word;
  }
};

/// The entries of a strip, one to a lane.
struct LaneEntry {
  static constexpr std::uint32_t kNone = 0xFFFFFFFFU;  // bits 28 to 31 of an entry are zero
  static_assert(kPairsMaxEntries <= kPairsLanes);

  std::uint32_t entry, count;

  __device__ void load(const PairsHead& head, int strip_number, int lane) {
    const auto* const from =
        reinterpret_cast<const std::uint32_t*>(&head + 1) + head.first_entry(strip_number);
    count = head.start(strip_number).entries;
    entry = static_cast<std::uint32_t>(lane) < count ? from[lane] : kNone;
  }

  /// Stores it if it is of that stage of the unit.
  __device__ void store(Stage& stage, int stage_number) const {
    // The upper two bits of the column, and bit 31, which is set in kNone.
    if ((entry >> 22 & 0x203U) != static_cast<std::uint32_t>(stage_number)) return;
    const std::uint32_t row = entry >> 24;
    const std::uint32_t col = entry >> 16 & (kStageCols - 1);
    stage.values[row][col ^ row % kStageParts * kStagePartCols] = static_cast<std::uint16_t>(entry);
  }
};
static_assert(kStageCols == 64, "a stage's columns are six bits");

/// One strip of the unit at `unit`, in shared or global memory; its first row and column go to (row, col) of
/// the output.
template <PairsLeft kLeft>
__device__ __forceinline__ void expand_strip(const Params& p, const std::byte* unit, int strip_number,
                                             int lane, const std::uint32_t* selectors, Stage& stage,
                                             std::int64_t row, std::int64_t col) {
  const auto& head = *reinterpret_cast<const PairsHead*>(unit);
  const PairsStrip& strip = head.strips[strip_number];
  const std::uint32_t start = 4 * PairsStart::unpack(head.starts[strip_number]).word;
  std::uint32_t pairs = strip.pairs[lane];
  std::uint32_t left = 0;
  if constexpr (kLeft == PairsLeft::kMasks)
    left = reinterpret_cast<const PairsMasks*>(&head + 1)->left[strip_number][lane];
  LaneEntry entries;
  if constexpr (kLeft == PairsLeft::kEntries) entries.load(head, strip_number, lane);
  const PairsJump jump = PairsJump::unpack(strip.jumps[lane]);
  LaneList list{unit, start + static_cast<std::uint32_t>(4 * lane + kPairsListStride * jump.offset)};
  // The metadata of a lane's rows are in four lanes: those of two halves of two steps.
  const std::uint32_t(*const metadata)[4] = strip.metadata + (lane & ~3);
  const int quad_bit = PairsMetadata::of(0, 0, lane & 3).bit;
  const int quad_row = pairs_row(lane, 0);
  const int quad_col = pairs_quad(lane, 0) * kPairsQuadCols;
  const int vector_row = lane / kRowVectors;
  const int vector_col = lane % kRowVectors * kVector;
  const int swizzled_col = vector_col ^ (vector_row % kStageParts) * kStagePartCols;
  const auto num_rows =
      static_cast<int>(p.num_rows - row < kPairsStripRows ? p.num_rows - row : kPairsStripRows);

#pragma unroll 1
  for (int first = 0; first < kPairsSteps; first += kStageSteps) {
    if (col + first * kPairsStepCols >= p.out.cols) return;
#pragma unroll
    for (int i = 0; i < kStageSteps; ++i) {
      if (jump.step == first + i) list.at = start + static_cast<std::uint32_t>(4 * jump.target);
      std::uint32_t pair[kPairsRegisters];
      std::uint32_t rest[kPairsRegisters];
      std::uint32_t bytes[kPairsRegisters];
#pragma unroll
      for (int r = 0; r < kPairsRegisters; ++r) pair[r] = list.take(pairs, 4 * i + r);
#pragma unroll
      for (int r = 0; r < kPairsRegisters; ++r)
        rest[r] = kLeft == PairsLeft::kMasks ? list.take(left, 4 * i + r) : 0;
#pragma unroll
      for (int r = 0; r < kPairsRegisters; ++r) {
        const PairsMetadata place = PairsMetadata::of(i, 8 * (r & 1), pairs_quad(0, r));
        const std::uint32_t word = metadata[place.lane][first / kStageSteps];
        bytes[r] = selectors[word >> quad_bit >> place.bit & 15U];
      }
#pragma unroll
      for (int r = 0; r < kPairsRegisters; ++r) {
        const uint2 columns = {select_bytes(pair[r], rest[r], bytes[r]),
                               select_bytes(pair[r], 0, bytes[r] >> 16)};
        const int part = (2 * i + (r >> 1)) ^ (quad_row % kStageParts);
        *reinterpret_cast<uint2*>(&stage.values[quad_row + 8 * (r & 1)][part * kStagePartCols + quad_col]) =
            columns;
      }
    }
    pairs >>= kStageSteps * kPairsRegisters;
    left >>= kStageSteps * kPairsRegisters;
    __syncwarp();
    if constexpr (kLeft == PairsLeft::kEntries) {
      if (entries.count != 0) {
        entries.store(stage, first / kStageSteps);
        __syncwarp();
      }
    }
    const std::int64_t first_col = col + first * kPairsStepCols;
    const auto staged = [&](int r) {
      return *reinterpret_cast<const uint4*>(&stage.values[r + vector_row][swizzled_col]);
    };
    if (p.out.whole_vectors && num_rows == kPairsStripRows && first_col + kStageCols <= p.out.cols) {
      std::uint16_t* to = p.out.data + (row + vector_row) * p.out.cols + first_col + vector_col;
      uint4 vectors[kPairsStripRows / kRowsAtOnce];
#pragma unroll
      for (int r = 0; r < kPairsStripRows; r += kRowsAtOnce) vectors[r / kRowsAtOnce] = staged(r);
#pragma unroll
      for (int r = 0; r < kPairsStripRows; r += kRowsAtOnce) {
        store_whole(to, vectors[r / kRowsAtOnce]);
        to += kRowsAtOnce * p.out.cols;
      }
    } else {
#pragma unroll 1
      for (int r = 0; r + vector_row < num_rows; r += kRowsAtOnce)
        p.out.store(row + r + vector_row, first_col + vector_col, staged(r));
    }
    __syncwarp();
  }
}

static_assert(kPairsMostBytes + sizeof(Stage[kPairsStrips]) + 64 <= 48 * 1024, "needs opting in");

__global__ void __launch_bounds__(kThreads) expand_pairs24_kernel(const __grid_constant__ Params p) {
  extern __shared__ uint4 shared[];
  __shared__ alignas(16) Stage stages[kPairsStrips];
  __shared__ std::uint32_t selectors[16];
  const auto lane = static_cast<int>(threadIdx.x % kPairsLanes);
  const auto strip = static_cast<int>(threadIdx.x / kPairsLanes);
  const std::uint32_t begin = __ldg(p.table + blockIdx.x);
  const std::uint32_t vectors = __ldg(p.table + blockIdx.x + 1) - begin;
  const uint4* const from = p.units + begin;
  const bool is_copied = vectors <= p.shared_vectors;
  if (is_copied) {
    const std::uint32_t to = shared_address(shared);
#pragma unroll 4
    for (std::uint32_t i = threadIdx.x; i < vectors; i += kThreads) copy_async(to + 16 * i, from + i, 16);
    commit_copies();
  }
  if (threadIdx.x < 16) selectors[threadIdx.x] = quad_selectors(threadIdx.x);
  const std::int64_t row = std::int64_t{blockIdx.x / p.row_units} * kUnitRows + strip * kPairsStripRows;
  const std::int64_t col = std::int64_t{blockIdx.x % p.row_units} * kUnitCols;
  await_copies<0>();
  __syncthreads();
  const auto expand = [&](const uint4* unit_at) {
    const auto* const unit = reinterpret_cast<const std::byte*>(unit_at);
    if (PairsStart::unpack(unit_at->x).left() == PairsLeft::kMasks) {
      expand_strip<PairsLeft::kMasks>(p, unit, strip, lane, selectors, stages[strip], row, col);
    } else {
      expand_strip<PairsLeft::kEntries>(p, unit, strip, lane, selectors, stages[strip], row, col);
    }
  };
  if (is_copied) {
    expand(shared);
  } else {
    expand(from);
  }
}

}  // namespace

void expand_pairs24_cuda(const ExpandArgs& args, cudaStream_t stream) {
  const WeightView& weight = args.weight;
  const std::int64_t row_units = (weight.cols + kUnitCols - 1) / kUnitCols;
  // Room for an eighth more than a whole unit has on average: the less there is, the more blocks a
  // multiprocessor has.
  const std::int64_t mean = std::ssize(weight.data) * (kUnitRows * kUnitCols) / (weight.rows * weight.cols);
  const std::int64_t shared_bytes = std::min(kPairsMostBytes, (mean + mean / 8) / 1024 * 1024 + 1024);
  const Params p{.units = reinterpret_cast<const uint4*>(weight.data.data()),
                 .table = tile_table_of(weight) + args.first_row / kUnitRows * row_units,
                 .out = expanded_rows(args),
                 .num_rows = args.num_rows,
                 .row_units = static_cast<std::uint32_t>(row_units),
                 .shared_vectors = static_cast<std::uint32_t>(shared_bytes / 16)};
  const auto blocks = static_cast<unsigned>(num_tiles(Encoding::kPairs24, args.num_rows, weight.cols));
  expand_pairs24_kernel<<<blocks, kThreads, static_cast<std::size_t>(shared_bytes), stream>>>(p);
  CUDA_CHECK(cudaGetLastError());
}

}  // namespace sluice::kernels::detail
