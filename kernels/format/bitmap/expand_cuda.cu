// Expansion of bitmaps: a block for a chunk. Its nonzeros go to shared memory as 16-bit values, each
// converted once (codes to whole numbers); one warp counts the bits of the masks, so that every 32 of them
// know the number of their first nonzero. Then a lane makes eight columns at a time from their bits, and the
// scale of the segment multiplies them.
#include "kernels/device/cuda/check.h"
#include "kernels/format/bitmap/bitmap.h"
#include "kernels/format/cuda/expand_cuda.cuh"

namespace sluice::kernels::detail {
namespace {

constexpr int kThreads = 128;
constexpr int kSegments = kBitmapChunkSegments;
constexpr int kSegmentVectors = kBitmapSegmentCols / kVector;  // threads of a segment
constexpr int kSegmentWords = kBitmapSegmentCols / 32;
constexpr int kChunkVectors = kSegments * kSegmentVectors;
constexpr int kAhead = kChunkVectors / kThreads;  // vectors of 8 nonzeros of a thread, if none is zero
static_assert(kChunkVectors % kThreads == 0);

struct Params {
  const std::byte* chunks;     // of the whole matrix
  const std::uint32_t* table;  // from the first chunk to expand on
  ExpandedRows out;
  std::uint32_t num_segments, row_segments;
};

__device__ std::uint32_t as_word(__half2 x) { return *reinterpret_cast<const std::uint32_t*>(&x); }
__device__ std::uint32_t as_word(__nv_bfloat162 x) { return *reinterpret_cast<const std::uint32_t*>(&x); }

/// Eight stored nonzeros as 16-bit values: codes as the whole numbers q.
template <int kBits, class T>
struct Stored;
template <class T>
struct Stored<16, T> {
  uint4 words;
  __device__ uint4 values() const { return words; }
};
template <class T>
struct Stored<8, T> {
  uint2 words;
  __device__ uint4 values() const {
    const auto two = [](std::uint32_t word, int first) {
      return pack<T>(code_value(word >> (8 * first) & 255U, 128.0F),
                     code_value(word >> (8 * first + 8) & 255U, 128.0F));
    };
    return {two(words.x, 0), two(words.x, 2), two(words.y, 0), two(words.y, 2)};
  }
};
template <class T>
struct Stored<4, T> {
  std::uint32_t word;
  __device__ uint4 values() const {
    const auto two = [&](int first) {
      return pack<T>(code_value(word >> (4 * first) & 15U, 8.0F),
                     code_value(word >> (4 * first + 4) & 15U, 8.0F));
    };
    return {two(0), two(2), two(4), two(6)};
  }
};

/// Two values times a scale, rounded once: products of q and scale are exact before that.
__device__ std::uint32_t scaled(std::uint32_t values, __half scale) {
  return as_word(__hmul2(*reinterpret_cast<const __half2*>(&values), __half2half2(scale)));
}
__device__ std::uint32_t scaled(std::uint32_t values, __nv_bfloat16 scale) {
  return as_word(__hmul2(*reinterpret_cast<const __nv_bfloat162*>(&values), __bfloat162bfloat162(scale)));
}

/// Eight columns, whose bits are `bits`, from their nonzeros.
__device__ uint4 spread(const std::uint16_t* nonzeros, std::uint32_t bits) {
  std::uint32_t value[kVector];
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    const bool is_set = (bits >> j & 1U) != 0;
    value[j] = 0;
    if (is_set) value[j] = *nonzeros++;
  }
  return {value[0] | value[1] << 16, value[2] | value[3] << 16, value[4] | value[5] << 16,
          value[6] | value[7] << 16};
}

template <int kBits, class T, bool kWholeSegments>
__global__ void __launch_bounds__(kThreads) expand_bitmap_kernel(const __grid_constant__ Params p) {
  __shared__ alignas(16) std::uint16_t nonzeros[kChunkCells];
  __shared__ alignas(16) uint2 words[kSegments * kSegmentWords];  // 32 bits, and the number of the first one
  __shared__ T scales[kSegments];
  constexpr int kHead = static_cast<int>(kChunkMaskBytes) + (kBits == 16 ? 0 : 2 * kSegments);
  const int thread = static_cast<int>(threadIdx.x);
  const std::uint32_t begin = __ldg(p.table + blockIdx.x);
  const std::uint32_t end = __ldg(p.table + blockIdx.x + 1);
  const std::byte* const chunk = p.chunks + std::int64_t{16} * begin;

  // 1. The nonzeros are on their way while the masks are counted.
  using Vector = Stored<kBits, T>;
  const auto* const stored = reinterpret_cast<const Vector*>(chunk + kHead);
  const int vectors = static_cast<int>((end - begin) * 16 - kHead) / static_cast<int>(sizeof(Vector));
  Vector ahead[kAhead];
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    if (i * kThreads + thread < vectors) ahead[i] = stored[i * kThreads + thread];
  }
  if (thread < kSegments) {
    const uint4 mask = __ldg(reinterpret_cast<const uint4*>(chunk) + thread);
    if constexpr (kBits != 16) scales[thread] = reinterpret_cast<const T*>(chunk + kChunkMaskBytes)[thread];
    const int upto_y = __popc(mask.x);
    const int upto_z = upto_y + __popc(mask.y);
    const int upto_w = upto_z + __popc(mask.z);
    const int count = upto_w + __popc(mask.w);
    int last = count;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const int before = __shfl_up_sync(0xFFFFFFFFU, last, distance);
      if (thread >= distance) last += before;
    }
    const auto first = static_cast<std::uint32_t>(last - count);
    auto* const to = reinterpret_cast<uint4*>(words + thread * kSegmentWords);
    to[0] = {mask.x, first, mask.y, first + upto_y};
    to[1] = {mask.z, first + upto_z, mask.w, first + upto_w};
  }
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    if (i * kThreads + thread < vectors)
      reinterpret_cast<uint4*>(nonzeros)[i * kThreads + thread] = ahead[i].values();
  }
  __syncthreads();

  // 2. Eight columns at a time.
  const int vector = thread % kSegmentVectors;
  const std::uint32_t front = (1U << (8 * (vector % 4))) - 1;  // columns of the word before these
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    const int segment = (i * kThreads + thread) / kSegmentVectors;
    const uint2 word = words[segment * kSegmentWords + vector / 4];
    uint4 columns = spread(nonzeros + word.y + __popc(word.x & front), word.x >> (8 * (vector % 4)));
    if constexpr (kBits != 16) {
      const T scale = scales[segment];
      columns = {scaled(columns.x, scale), scaled(columns.y, scale), scaled(columns.z, scale),
                 scaled(columns.w, scale)};
    }
    const std::uint32_t number = blockIdx.x * kSegments + static_cast<std::uint32_t>(segment);
    if (number >= p.num_segments) return;
    if constexpr (kWholeSegments) {
      reinterpret_cast<uint4*>(p.out.data)[std::int64_t{number} * kSegmentVectors + vector] = columns;
    } else {
      p.out.store(number / p.row_segments,
                  std::int64_t{number % p.row_segments} * kBitmapSegmentCols + vector * kVector, columns);
    }
  }
}

template <int kBits, class T>
void launch(const Params& p, std::int64_t chunks, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(chunks);
  if (p.out.cols % kBitmapSegmentCols == 0) {
    expand_bitmap_kernel<kBits, T, true><<<blocks, kThreads, 0, stream>>>(p);
  } else {
    expand_bitmap_kernel<kBits, T, false><<<blocks, kThreads, 0, stream>>>(p);
  }
}

}  // namespace

void expand_bitmap_cuda(const ExpandArgs& args, cudaStream_t stream) {
  const WeightView& weight = args.weight;
  const std::int64_t row_segments = (weight.cols + kBitmapSegmentCols - 1) / kBitmapSegmentCols;
  const Params p{.chunks = weight.data.data(),
                 .table = tile_table_of(weight) + args.first_row * row_segments / kSegments,
                 .out = expanded_rows(args),
                 .num_segments = static_cast<std::uint32_t>(args.num_rows * row_segments),
                 .row_segments = static_cast<std::uint32_t>(row_segments)};
  const std::int64_t chunks = num_tiles(weight.format.encoding, args.num_rows, weight.cols);
  with_element_type(weight.format.dtype, [&](auto type) {
    using T = decltype(type);
    switch (element_bits(weight.format.encoding)) {
      case 16:
        launch<16, __half>(p, chunks, stream);
        break;
      case 8:
        launch<8, T>(p, chunks, stream);
        break;
      default:
        launch<4, T>(p, chunks, stream);
    }
  });
  CUDA_CHECK(cudaGetLastError());
}

}  // namespace sluice::kernels::detail
