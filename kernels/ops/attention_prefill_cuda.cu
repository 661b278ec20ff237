// Prefill attention: segments of kind kPrompt, of any number of rows, over fp16 pages, on the tensor cores
// (FlashAttention-2, Dao 2023).
//
// Tiling. One CTA per (tile of query rows, query head); a warp owns 16 rows. 128 rows, because each byte of K
// and V then serves 128 rows: with 64 the L2 cache, not the tensor cores, sets the pace on Hopper. K and V
// come one page head at a time, one buffer each: V of a page arrives while its scores are computed, K of the
// next page during softmax and output. Two CTAs share an SM (at most 128 registers a thread), so that one
// computes while the other waits. q stays in shared memory and is read again for every page: 12 % more
// shared-memory reads, but 32 registers fewer.
#include "kernels/ops/attention_tiles.cuh"

namespace sluice::kernels::detail {
namespace {

constexpr int kTokens = static_cast<int>(kKvPageTokens);

template <int kDim_, bool kExact_>
struct Tile {
  static constexpr int kDim = kDim_;       // head_dim, rounded up
  static constexpr bool kExact = kExact_;  // head_dim is kDim
  static constexpr int kPitch = row_pitch(kDim);
  static constexpr int kWarps = kDim > 128 ? 4 : 8, kThreads = 32 * kWarps, kRows = 16 * kWarps;
  static constexpr int kCtas = 16 / kWarps / (kDim > 128 ? 2 : 1);  // per SM, as registers allow
  static constexpr int kSharedBytes = (kRows + 2 * kTokens) * kPitch;
  static_assert(kSharedBytes <= 99 * 1024, "more than some Ampere and Ada GPUs have");
};

struct Params {
  Activations activations;
  TileTables tables;
  float scale_log2;
  int num_kv_heads, head_dim, group;
};

/// q of the CTA's rows into shared memory; zero behind num_rows and head_dim.
template <class T>
__device__ void read_queries(const Params& p, const RowTile& tile, int head, int pieces, std::uint32_t to) {
  for (int i = static_cast<int>(threadIdx.x); i < T::kRows * T::kDim / 8; i += T::kThreads) {
    const int row = i / (T::kDim / 8), piece = i % (T::kDim / 8);
    uint4 x = make_uint4(0, 0, 0, 0);
    if (row < tile.num_rows && piece < pieces) {
      const Activations& a = p.activations;
      x = load_8(a.q + (tile.first_row + row) * a.q_stride + static_cast<std::int64_t>(head) * p.head_dim +
                     piece * 8,
                 a.wide_q);
      if (a.is_bf16) {
        x = make_uint4(activations_to_half2(x.x, true), activations_to_half2(x.y, true),
                       activations_to_half2(x.z, true), activations_to_half2(x.w, true));
      }
    }
    store_shared_16(to + row * T::kPitch + piece * 16, x);
  }
}

/// Starts the copy of one head of a page; rows from `valid` on become zero, as nobody may have written them.
template <class T>
__device__ void start_page(const std::byte* from, int pieces, int valid, std::uint32_t to) {
#pragma unroll
  for (int first = 0; first < kTokens * T::kDim / 8; first += T::kThreads) {
    const int i = first + static_cast<int>(threadIdx.x);
    if ((!T::kExact || kTokens * T::kDim / 8 % T::kThreads != 0) && i >= kTokens * pieces) break;
    copy_async(to + i / pieces * T::kPitch + i % pieces * 16, from + i * 16, i < valid * pieces ? 16 : 0);
  }
}

/// A warp's 16 rows. A lane has rows lane / 4 + {0, 8} and columns 2 (lane % 4) + {0, 1} of each 8.
template <class T>
struct State {
  float out[T::kDim / 8][4] = {};
  float max[2] = {-INFINITY, -INFINITY};  // of the unscaled scores
  float sum[2] = {0, 0};                  // of this lane's columns

  __device__ static void scores(std::uint32_t q, std::uint32_t k, float (&s)[kTokens / 8][4]) {
    const int lane = static_cast<int>(threadIdx.x % 32);
    const std::uint32_t q_at = q + lane % 16 * T::kPitch + lane / 16 * 16;
    const std::uint32_t k_at = k + (lane % 8 + lane / 16 * 8) * T::kPitch + lane / 8 % 2 * 16;
#pragma unroll
    for (int kk = 0; kk < T::kDim / 16; ++kk) {
      std::uint32_t a[4];
      load_matrices(a, q_at + kk * 32);
#pragma unroll
      for (int n = 0; n < kTokens / 16; ++n) {
        std::uint32_t b[4];
        load_matrices(b, k_at + n * (16 * T::kPitch) + kk * 32);
        multiply_add<__half>(s[2 * n], a, b[0], b[1]);
        multiply_add<__half>(s[2 * n + 1], a, b[2], b[3]);
      }
    }
  }

  /// Scores become probabilities relative to the largest score so far.
  __device__ void soften(float (&s)[kTokens / 8][4], float scale_log2) {
    bool grown = false;
    float factor[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float largest = max[half];
#pragma unroll
      for (int n = 0; n < kTokens / 8; ++n)
        largest = fmaxf(largest, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
      largest = fmaxf(largest, __shfl_xor_sync(0xFFFFFFFFU, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(0xFFFFFFFFU, largest, 2));
      factor[half] = exp2_fast((max[half] - largest) * scale_log2);
      grown |= largest > max[half];
      max[half] = largest;
      const float shift = largest * scale_log2;
      float page_sum = 0;
#pragma unroll
      for (int n = 0; n < kTokens / 8; ++n) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          s[n][i] = exp2_fast(fmaf(s[n][i], scale_log2, -shift));
          page_sum += s[n][i];
        }
      }
      sum[half] = sum[half] * factor[half] + page_sum;
    }
    if (!__any_sync(0xFFFFFFFFU, grown)) return;
#pragma unroll
    for (auto& o : out) {
#pragma unroll
      for (int i = 0; i < 4; ++i) o[i] *= factor[i / 2];
    }
  }

  __device__ void add_values(std::uint32_t v, const float (&s)[kTokens / 8][4]) {
    const int lane = static_cast<int>(threadIdx.x % 32);
    const std::uint32_t v_at = v + lane % 16 * T::kPitch + lane / 16 * 16;
#pragma unroll
    for (int kk = 0; kk < kTokens / 16; ++kk) {
      const std::uint32_t a[4] = {
          pack_half2(s[2 * kk][0], s[2 * kk][1]), pack_half2(s[2 * kk][2], s[2 * kk][3]),
          pack_half2(s[2 * kk + 1][0], s[2 * kk + 1][1]), pack_half2(s[2 * kk + 1][2], s[2 * kk + 1][3])};
#pragma unroll
      for (int n = 0; n < T::kDim / 16; ++n) {
        std::uint32_t b[4];
        load_transposed(b, v_at + kk * (16 * T::kPitch) + n * 32);
        multiply_add<__half>(out[2 * n], a, b[0], b[1]);
        multiply_add<__half>(out[2 * n + 1], a, b[2], b[3]);
      }
    }
  }
};

/// Columns that a row does not see get no probability.
__device__ void mask(const RowTile& tile, int warp_row, int first_column, float (&s)[kTokens / 8][4]) {
  const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int end = tile.visible(warp_row + lane / 4 + 8 * half) - first_column - 2 * (lane % 4);
#pragma unroll
    for (int n = 0; n < kTokens / 8; ++n) {
      if (8 * n >= end) s[n][2 * half] = -INFINITY;
      if (8 * n + 1 >= end) s[n][2 * half + 1] = -INFINITY;
    }
  }
}

/// The warp's rows, by way of its rows of q in shared memory, which nobody reads any more.
template <class T>
__device__ void write_out(const Params& p, const RowTile& tile, int head, int pieces, int warp_row,
                          State<T>& state, std::uint32_t rows) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const Activations& a = p.activations;
  __syncwarp();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float sum = state.sum[half];
    sum += __shfl_xor_sync(0xFFFFFFFFU, sum, 1);
    sum += __shfl_xor_sync(0xFFFFFFFFU, sum, 2);
    const float scale = 1.0F / sum;
    const std::uint32_t to = rows + (lane / 4 + 8 * half) * T::kPitch + lane % 4 * 4;
#pragma unroll
    for (int n = 0; n < T::kDim / 8; ++n) {
      store_shared_4(to + n * 16, narrow_pair(state.out[n][2 * half] * scale,
                                              state.out[n][2 * half + 1] * scale, a.is_bf16));
    }
  }
  __syncwarp();
  for (int i = lane; i < 16 * T::kDim / 8; i += 32) {
    const int row = i / (T::kDim / 8), piece = i % (T::kDim / 8);
    if (warp_row + row >= tile.num_rows || piece >= pieces) continue;
    store_8(a.out + (tile.first_row + warp_row + row) * a.out_stride +
                static_cast<std::int64_t>(head) * p.head_dim + piece * 8,
            load_shared_16(rows + row * T::kPitch + piece * 16), a.wide_out);
  }
}

template <class T>
__global__ void __launch_bounds__(T::kThreads, T::kCtas) prefill_kernel(const __grid_constant__ Params p) {
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ RowTile tile;  // here and not in registers, which are all taken
  if (threadIdx.x == 0) tile = p.tables.tiles[blockIdx.x];
  __syncthreads();
  const int head = static_cast<int>(blockIdx.y);
  const int pieces = T::kExact ? T::kDim / 8 : p.head_dim / 8;
  const int warp_row = static_cast<int>(threadIdx.x / 32) * 16;
  const std::uint32_t k = shared_address(shared), v = k + kTokens * T::kPitch, q = v + kTokens * T::kPitch;

  const int end = tile.visible(tile.num_rows - 1);  // of the columns
  const int num_pages = (end + kTokens - 1) / kTokens;
  const std::byte* const* pages = p.tables.pages + tile.first_page;
  const std::int64_t k_offset = static_cast<std::int64_t>(head / p.group) * (kTokens * 16) * pieces;
  const std::int64_t v_offset =
      k_offset + static_cast<std::int64_t>(p.num_kv_heads) * (kTokens * 16) * pieces;

  start_page<T>(pages[0] + k_offset, pieces, end, k);
  commit_copies();
  read_queries<T>(p, tile, head, pieces, q);
  if constexpr (!T::kExact) {  // the columns behind head_dim are never written again
    for (int i = static_cast<int>(threadIdx.x); i < 2 * kTokens * (T::kDim / 8 - pieces); i += T::kThreads) {
      const int padding = T::kDim / 8 - pieces;
      store_shared_16(k + i / padding * T::kPitch + (pieces + i % padding) * 16, make_uint4(0, 0, 0, 0));
    }
  }

  State<T> state;
  const bool has_rows = warp_row < tile.num_rows;
  const int all_see = tile.visible(warp_row), some_see = tile.visible(min(warp_row + 15, tile.num_rows - 1));
  for (int page = 0; page < num_pages; ++page) {
    const int first_column = page * kTokens;
    const std::byte* const this_page = pages[page];
    const std::byte* const next_page = page + 1 < num_pages ? pages[page + 1] : nullptr;
    await_copies<0>();
    __syncthreads();  // K is here; V of the page before is used up
    start_page<T>(this_page + v_offset, pieces, end - first_column, v);
    commit_copies();
    const bool works = has_rows && first_column < some_see;
    float s[kTokens / 8][4] = {};
    if (works) State<T>::scores(q + warp_row * T::kPitch, k, s);
    await_copies<0>();
    __syncthreads();  // V is here; K is used up
    if (next_page != nullptr) start_page<T>(next_page + k_offset, pieces, end - first_column - kTokens, k);
    commit_copies();
    if (!works) continue;
    if (first_column + kTokens > all_see) mask(tile, warp_row, first_column, s);
    state.soften(s, p.scale_log2);
    state.add_values(v, s);
  }
  if (has_rows) write_out<T>(p, tile, head, pieces, warp_row, state, q + warp_row * T::kPitch);
}

template <class T>
void run(const AttentionArgs& args, CudaStream& stream) {
  Params p{.activations = lower_activations(args),
           .tables = {},
           .scale_log2 = args.scale * 1.4426950408889634F,
           .num_kv_heads = static_cast<int>(args.layout.num_kv_heads),
           .head_dim = static_cast<int>(args.layout.head_dim),
           .group = static_cast<int>(args.num_heads / args.layout.num_kv_heads)};
  const auto launch = [&](const TileTables& tables, unsigned num_tiles) {
    p.tables = tables;
    CUDA_CHECK(cudaFuncSetAttribute(prefill_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    T::kSharedBytes));
    // Tiles are the fast axis: those of one sequence read the same K and V of a head at about the same time.
    prefill_kernel<T><<<dim3(num_tiles, static_cast<unsigned>(args.num_heads)), T::kThreads, T::kSharedBytes,
                        stream.raw()>>>(p);
    CUDA_CHECK(cudaGetLastError());
  };
  TileBuilder tiles(stream);
  for (const PagedSegment& segment : args.segments) {
    if (segment.kind == SegmentKind::kPrompt && segment.num_rows > 0) tiles.add(segment, T::kRows, launch);
  }
  tiles.flush(launch);
}

}  // namespace

void attention_prefill_cuda(const AttentionArgs& args, Stream& any_stream) {
  CudaStream& stream = as_cuda(any_stream);
  switch (args.layout.head_dim) {
    case 64:
      return run<Tile<64, true>>(args, stream);
    case 80:
      return run<Tile<80, true>>(args, stream);
    case 96:
      return run<Tile<96, true>>(args, stream);
    case 128:
      return run<Tile<128, true>>(args, stream);
    default:
      break;
  }
  if (args.layout.head_dim < 64) return run<Tile<64, false>>(args, stream);
  if (args.layout.head_dim < 128) return run<Tile<128, false>>(args, stream);
  return run<Tile<256, false>>(args, stream);
}

}  // namespace sluice::kernels::detail
