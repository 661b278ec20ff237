// Writing new K and V rows into pages on a CUDA device. Rounding is core's to_half(), to nearest even; a copy
// if the activations are fp16 already. Bound by memory.
//
// Tiling. One CTA per (run, part): a run is the rows of one segment that lie in one page, and its 8-element
// pieces are dealt out to so many parts that a thread has about eight, or two in decode, whose few rows are
// all latency. The runs travel as parameters of the kernel: a table in host memory costs a trip over PCIe.
#include <algorithm>

#include "kernels/device/cuda/launch.cuh"
#include "kernels/ops/attention_cuda.cuh"
#include "kernels/ops/cuda_kernels.h"

namespace sluice::kernels::detail {
namespace {

constexpr int kThreads = 256;
constexpr int kPiecesPerThread = 8, kDecodePiecesPerThread = 2;
constexpr int kMaxParts = 256;

struct alignas(16) Run {
  std::byte* page;
  std::int32_t first_row;  // of k and v
  std::int16_t first_token, num_rows;
};
static_assert(sizeof(Run) == 16);

struct Params {
  static constexpr std::size_t kMaxRuns = 240;
  Run runs[kMaxRuns];
  const std::uint16_t *k, *v;
  std::int64_t k_stride, v_stride;
  int num_kv_heads, head_dim;
  bool is_bf16, wide_k, wide_v;
  bool in_prompt;  // some run is of a prompt
};
static_assert(sizeof(Params) <= 4096);  // what kernels have always been able to take

__device__ void store_piece(__half* to, uint4 x, bool is_bf16) {
  if (is_bf16) {
    x = make_uint4(activations_to_half2(x.x, true), activations_to_half2(x.y, true),
                   activations_to_half2(x.z, true), activations_to_half2(x.w, true));
  }
  *reinterpret_cast<uint4*>(to) = x;
}
__device__ void store_piece(float* to, uint4 x, bool is_bf16) {
  const std::uint32_t pairs[4] = {x.x, x.y, x.z, x.w};
  float y[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    y[i] = activation_to_float(static_cast<std::uint16_t>(pairs[i / 2] >> (i % 2 * 16)), is_bf16);
  }
  reinterpret_cast<float4*>(to)[0] = make_float4(y[0], y[1], y[2], y[3]);
  reinterpret_cast<float4*>(to)[1] = make_float4(y[4], y[5], y[6], y[7]);
}

template <class T>
__global__ void __launch_bounds__(kThreads) kv_write_kernel(const __grid_constant__ Params p) {
  wait_for_kernels_before();
  let_next_kernel_start();
  const Run& run = p.runs[blockIdx.x];
  // Pieces of a row of k, then of v, then of the next row: reads are contiguous, writes as long as a head.
  const int head_pieces = p.head_dim / 8, row_pieces = p.num_kv_heads * head_pieces;
  const int total = run.num_rows * 2 * row_pieces;
  for (int i = static_cast<int>(blockIdx.y) * kThreads + static_cast<int>(threadIdx.x); i < total;
       i += static_cast<int>(gridDim.y) * kThreads) {
    const int row = i / (2 * row_pieces);
    const bool is_v = i / row_pieces % 2 != 0;
    const int head = i % row_pieces / head_pieces, piece = i % head_pieces;
    const std::int64_t source_row = run.first_row + row;
    const std::uint16_t* from =
        (is_v ? p.v + source_row * p.v_stride : p.k + source_row * p.k_stride) + i % row_pieces * 8;
    const std::int64_t page_head = head + (is_v ? p.num_kv_heads : 0);
    T* to = reinterpret_cast<T*>(run.page) +
            (page_head * kKvPageTokens + run.first_token + row) * p.head_dim + piece * 8;
    store_piece(to, load_8(from, is_v ? p.wide_v : p.wide_k), p.is_bf16);
  }
}

void enqueue(Params& p, std::size_t num_runs, int most_rows, KvFormat format, CudaStream& stream) {
  if (num_runs == 0) return;
  const int pieces = most_rows * 2 * p.num_kv_heads * p.head_dim / 8;
  const int per_cta = kThreads * (p.in_prompt ? kPiecesPerThread : kDecodePiecesPerThread);
  const int parts = std::clamp((pieces + per_cta - 1) / per_cta, 1, kMaxParts);
  const dim3 grid(static_cast<unsigned>(num_runs), static_cast<unsigned>(parts));
  if (format == KvFormat::kF16) {
    launch_overlapping(stream, kv_write_kernel<__half>, grid, kThreads, 0, p);
  } else {
    launch_overlapping(stream, kv_write_kernel<float>, grid, kThreads, 0, p);
  }
}

}  // namespace

void kv_write_cuda(const KvWriteArgs& args, Stream& any_stream) {
  CudaStream& stream = as_cuda(any_stream);
  Params p{.runs = {},
           .k = reinterpret_cast<const std::uint16_t*>(args.k.data),
           .v = reinterpret_cast<const std::uint16_t*>(args.v.data),
           .k_stride = args.k.stride,
           .v_stride = args.v.stride,
           .num_kv_heads = static_cast<int>(args.layout.num_kv_heads),
           .head_dim = static_cast<int>(args.layout.head_dim),
           .is_bf16 = args.k.dtype == DType::kBF16,
           .wide_k = rows_are_aligned(args.k.data, args.k.stride, 16),
           .wide_v = rows_are_aligned(args.v.data, args.v.stride, 16),
           .in_prompt = std::ranges::any_of(args.segments, [](const PagedSegment& segment) {
             return segment.kind == SegmentKind::kPrompt && segment.num_rows > 0;
           })};
  std::size_t num_runs = 0;
  int most_rows = 0;
  for (const PagedSegment& segment : args.segments) {
    for (std::int64_t row = 0; row < segment.num_rows;) {
      const std::int64_t kv = segment.first_kv + row;
      const std::int64_t rows =
          std::min<std::int64_t>(segment.num_rows - row, kKvPageTokens - kv % kKvPageTokens);
      if (num_runs == Params::kMaxRuns) {
        enqueue(p, num_runs, most_rows, args.layout.format, stream);
        num_runs = 0;
        most_rows = 0;
      }
      // The pages belong to the KV cache, which handed them out for writing; readers share the same type.
      p.runs[num_runs++] = {.page = const_cast<std::byte*>(segment.pages[kv / kKvPageTokens]),
                            .first_row = static_cast<std::int32_t>(segment.first_row + row),
                            .first_token = static_cast<std::int16_t>(kv % kKvPageTokens),
                            .num_rows = static_cast<std::int16_t>(rows)};
      most_rows = std::max(most_rows, static_cast<int>(rows));
      row += rows;
    }
  }
  enqueue(p, num_runs, most_rows, args.layout.format, stream);
  if (p.in_prompt)
    stream.end_overlap();  // decode attention reads what is in front of its row before it waits
}

}  // namespace sluice::kernels::detail
