// Attention over fp32 pages, in fp32. For checks of the other kernels and of the engine, and not tuned:
// tensor cores would round K and V.
//
// Tiling. One CTA per (16 query rows, query head). A warp takes every kWarps-th row and walks over its
// tokens, four at a time, so that four sums over the lanes overlap; a lane holds every 32nd dimension.
#include "kernels/ops/attention_tiles.cuh"

namespace sluice::kernels::detail {
namespace {

constexpr int kWarps = 4, kThreads = 32 * kWarps, kRows = 16;
constexpr int kTokens = 4;    // at a time; a page is a multiple
constexpr int kElements = 8;  // of a lane: head_dim is at most 256

struct Params {
  Activations activations;
  TileTables tables;
  float scale_log2;
  int num_kv_heads, head_dim, group;
};

__global__ void __launch_bounds__(kThreads) fp32_kv_kernel(const __grid_constant__ Params p) {
  const RowTile tile = p.tables.tiles[blockIdx.x];
  const int head = static_cast<int>(blockIdx.y), kv_head = head / p.group;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const std::byte* const* pages = p.tables.pages + tile.first_page;
  const Activations& a = p.activations;
  const std::int64_t head_floats = kKvPageTokens * p.head_dim;

  for (int row = static_cast<int>(threadIdx.x / 32); row < tile.num_rows; row += kWarps) {
    const std::int64_t column = static_cast<std::int64_t>(head) * p.head_dim;
    float q[kElements], out[kElements] = {};
#pragma unroll
    for (int e = 0; e < kElements; ++e) {
      const int i = lane + 32 * e;
      q[e] = i < p.head_dim
                 ? activation_to_float(a.q[(tile.first_row + row) * a.q_stride + column + i], a.is_bf16)
                 : 0;
    }
    float largest = -INFINITY, sum = 0;
    const int end = tile.visible(row);
    for (int t = 0; t < end; t += kTokens) {
      const auto* k = reinterpret_cast<const float*>(pages[t / kKvPageTokens]) + kv_head * head_floats +
                      t % static_cast<int>(kKvPageTokens) * p.head_dim;
      const float* v = k + p.num_kv_heads * head_floats;
      // 1. Scores of the tokens that are there.
      float s[kTokens] = {};
#pragma unroll
      for (int e = 0; e < kElements; ++e) {
        const int i = lane + 32 * e;
        if (i >= p.head_dim) break;
#pragma unroll
        for (int j = 0; j < kTokens; ++j) {
          if (t + j < end) s[j] = fmaf(q[e], k[j * p.head_dim + i], s[j]);
        }
      }
#pragma unroll
      for (int lanes = 16; lanes > 0; lanes /= 2) {
#pragma unroll
        for (float& x : s) x += __shfl_xor_sync(0xFFFFFFFFU, x, lanes);
      }
      // 2. Probabilities relative to the largest score so far.
      float now = largest;
#pragma unroll
      for (int j = 0; j < kTokens; ++j) {
        s[j] = t + j < end ? s[j] * p.scale_log2 : -INFINITY;
        now = fmaxf(now, s[j]);
      }
      const float factor = exp2f(largest - now);
      largest = now;
      sum *= factor;
#pragma unroll
      for (float& x : s) sum += x = exp2f(x - now);
        // 3. Output.
#pragma unroll
      for (int e = 0; e < kElements; ++e) {
        const int i = lane + 32 * e;
        if (i >= p.head_dim) break;
        out[e] *= factor;
#pragma unroll
        for (int j = 0; j < kTokens; ++j) {
          if (t + j < end) out[e] = fmaf(s[j], v[j * p.head_dim + i], out[e]);
        }
      }
    }
#pragma unroll
    for (int e = 0; e < kElements; ++e) {
      const int i = lane + 32 * e;
      if (i < p.head_dim) {
        a.out[(tile.first_row + row) * a.out_stride + column + i] =
            float_to_activation(out[e] / sum, a.is_bf16);
      }
    }
  }
}

}  // namespace

void attention_fp32_kv_cuda(const AttentionArgs& args, Stream& any_stream) {
  CudaStream& stream = as_cuda(any_stream);
  Params p{.activations = lower_activations(args),
           .tables = {},
           .scale_log2 = args.scale * 1.4426950408889634F,
           .num_kv_heads = static_cast<int>(args.layout.num_kv_heads),
           .head_dim = static_cast<int>(args.layout.head_dim),
           .group = static_cast<int>(args.num_heads / args.layout.num_kv_heads)};
  const auto launch = [&](const TileTables& tables, unsigned num_tiles) {
    p.tables = tables;
    fp32_kv_kernel<<<dim3(num_tiles, static_cast<unsigned>(args.num_heads)), kThreads, 0, stream.raw()>>>(p);
    CUDA_CHECK(cudaGetLastError());
  };
  TileBuilder tiles(stream);
  for (const PagedSegment& segment : args.segments) {
    if (segment.num_rows > 0) tiles.add(segment, kRows, launch);
  }
  tiles.flush(launch);
}

}  // namespace sluice::kernels::detail
