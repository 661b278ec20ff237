// Expansion of bitmaps. A quarter of a chunk is a warp's work: its lanes hold the masks of the chunk's 32
// segments, whose counts, summed, say where each segment's nonzeros begin; then two segments a step, eight
// columns a lane, each of which finds its nonzeros by the bits in front of it.
#include "kernels/device/cuda/check.h"
#include "kernels/format/bitmap/bitmap.h"
#include "kernels/format/expand_cuda.cuh"

namespace sluice::kernels::detail {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kWarpsPerChunk = 4;
constexpr int kSegments = kBitmapChunkSegments;
constexpr int kSegmentVectors = kBitmapSegmentCols / kVector;  // lanes of a segment
constexpr int kSteps = kSegments / 2 / kWarpsPerChunk;         // of a warp

struct Params {
  const std::byte* chunks;     // of the whole matrix
  const std::uint32_t* table;  // from the first chunk to expand on
  ExpandedRows out;
  std::int64_t num_chunks, num_segments;
  std::uint32_t row_segments;
  bool whole_segments;  // cols is a multiple of 128: segments follow each other in the result
};

__device__ std::uint32_t load_32(const std::byte* from) {
  return __ldg(reinterpret_cast<const std::uint32_t*>(from));
}

/// Eight columns from their nonzeros, which begin with number `first` of the chunk.
template <int kBits, class T>
struct Columns {
  static_assert(kBits == 4 || kBits == 8);

  /// Codes of 4 or 8 bits come in whole words, of which up to 12 bytes behind the chunk may be read: the
  /// table stands there.
  static __device__ uint4 spread(const std::byte* values, int first, std::uint32_t bits, float scale) {
    constexpr int kPerWord = 32 / kBits;
    const std::byte* const word = values + first / kPerWord * 4;
    const unsigned shift = static_cast<unsigned>(first % kPerWord * kBits);
    std::uint32_t codes = __funnelshift_r(load_32(word), load_32(word + 4), shift);
    std::uint32_t more = kBits == 8 ? __funnelshift_r(load_32(word + 4), load_32(word + 8), shift) : 0;
    float value[kVector];
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      const bool is_set = (bits >> j & 1U) != 0;
      constexpr float kBias = kBits == 8 ? 128.0F : 8.0F;
      value[j] = is_set ? code_value(codes & ((1U << kBits) - 1), kBias) * scale : 0.0F;
      if (is_set) {
        codes = __funnelshift_r(codes, more, kBits);
        more >>= kBits;
      }
    }
    return {pack<T>(value[0], value[1]), pack<T>(value[2], value[3]), pack<T>(value[4], value[5]),
            pack<T>(value[6], value[7])};
  }
};
template <class T>
struct Columns<16, T> {
  static __device__ uint4 spread(const std::byte* values, int first, std::uint32_t bits, float) {
    const auto* const from = reinterpret_cast<const std::uint16_t*>(values);
    std::uint32_t value[kVector];
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      const bool is_set = (bits >> j & 1U) != 0;
      value[j] = is_set ? __ldg(from + first) : 0U;
      first += is_set ? 1 : 0;
    }
    return {value[0] | value[1] << 16, value[2] | value[3] << 16, value[4] | value[5] << 16,
            value[6] | value[7] << 16};
  }
};

template <int kBits, class T>
__global__ void __launch_bounds__(kThreads) expand_bitmap_kernel(const __grid_constant__ Params p) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::int64_t warp = std::int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  const std::int64_t chunk = warp / kWarpsPerChunk;
  if (chunk >= p.num_chunks) return;
  const std::byte* const masks = p.chunks + tile_start(p.table, chunk);
  const std::byte* const scales = masks + kSegments * kSegmentMaskBytes;
  const std::byte* const values = masks + (kBits == 16 ? 0 : 2 * kSegments) + kSegments * kSegmentMaskBytes;

  // 1. Where the nonzeros of each segment begin.
  const uint4 own = __ldg(reinterpret_cast<const uint4*>(masks) + lane);
  const int count = __popc(own.x) + __popc(own.y) + __popc(own.z) + __popc(own.w);
  int end = count;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const int before = __shfl_up_sync(0xFFFFFFFFU, end, distance);
    if (lane >= distance) end += before;
  }
  const int begin = end - count;

  // 2. Two segments at once. The bits of a lane's segment in front of its columns are those of `front`.
  const int vector = lane % kSegmentVectors;
  uint4 front;
  front.x = vector < 4 ? (1U << (8 * vector)) - 1 : ~0U;
  front.y = vector < 4 ? 0 : vector < 8 ? (1U << (8 * (vector - 4))) - 1 : ~0U;
  front.z = vector < 8 ? 0 : vector < 12 ? (1U << (8 * (vector - 8))) - 1 : ~0U;
  front.w = vector < 12 ? 0 : (1U << (8 * (vector - 12))) - 1;
  const int first_segment = static_cast<int>(warp % kWarpsPerChunk) * 2 * kSteps + lane / kSegmentVectors;
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    const int segment = first_segment + 2 * step;
    const uint4 mask = __ldg(reinterpret_cast<const uint4*>(masks) + segment);
    const int first = __shfl_sync(0xFFFFFFFFU, begin, segment) + __popc(mask.x & front.x) +
                      __popc(mask.y & front.y) + __popc(mask.z & front.z) + __popc(mask.w & front.w);
    const std::uint32_t word = vector < 8 ? (vector < 4 ? mask.x : mask.y) : (vector < 12 ? mask.z : mask.w);
    const std::uint32_t bits = word >> (8 * (vector % 4)) & 0xFFU;
    float scale = 0;
    if constexpr (kBits != 16) scale = widen(reinterpret_cast<const T*>(scales)[segment]);
    const uint4 columns = Columns<kBits, T>::spread(values, first, bits, scale);
    const std::int64_t number = chunk * kSegments + segment;
    if (number >= p.num_segments) continue;
    if (p.whole_segments) {
      reinterpret_cast<uint4*>(p.out.data)[number * kSegmentVectors + vector] = columns;
    } else {
      const auto row = static_cast<std::uint32_t>(number) / p.row_segments;
      const auto in_row = static_cast<std::uint32_t>(number) % p.row_segments;
      p.out.store(row, std::int64_t{in_row} * kBitmapSegmentCols + vector * kVector, columns);
    }
  }
}

}  // namespace

void expand_bitmap_cuda(const ExpandArgs& args, cudaStream_t stream) {
  const WeightView& weight = args.weight;
  const std::int64_t row_segments = (weight.cols + kBitmapSegmentCols - 1) / kBitmapSegmentCols;
  const Params p{.chunks = weight.data.data(),
                 .table = tile_table_of(weight) + args.first_row * row_segments / kSegments,
                 .out = expanded_rows(args),
                 .num_chunks = num_tiles(weight.format.encoding, args.num_rows, weight.cols),
                 .num_segments = args.num_rows * row_segments,
                 .row_segments = static_cast<std::uint32_t>(row_segments),
                 .whole_segments = weight.cols % kBitmapSegmentCols == 0};
  const auto blocks = static_cast<unsigned>((p.num_chunks * kWarpsPerChunk + kWarps - 1) / kWarps);
  with_element_type(weight.format.dtype, [&](auto type) {
    using T = decltype(type);
    switch (element_bits(weight.format.encoding)) {
      case 16:
        expand_bitmap_kernel<16, __half><<<blocks, kThreads, 0, stream>>>(p);
        break;
      case 8:
        expand_bitmap_kernel<8, T><<<blocks, kThreads, 0, stream>>>(p);
        break;
      default:
        expand_bitmap_kernel<4, T><<<blocks, kThreads, 0, stream>>>(p);
    }
  });
  CUDA_CHECK(cudaGetLastError());
}

}  // namespace sluice::kernels::detail
