// Decode attention: segments of kind kDecode, of one row each, over fp16 pages. Bound by reading K and V
// once.
//
// Tiling. One CTA per (chunk of a sequence, KV head, up to 8 of its query heads). A sequence is cut every 512
// tokens from its start, whatever else is in the batch; a tail shorter than half a chunk joins the chunk
// before it. Each warp takes every kWarps-th run of 16 tokens and has its own ring of asynchronous copies, so
// warps meet only at the end. The tensor cores compute S^T = K Q^T [16 tokens, 8 queries] and O^T += V^T P^T:
// with queries as the narrow side, 1 to 8 of them cost the same, and the accumulators take half the
// registers.
//
// Start. Pages travel as parameters of the kernel: each CTA would wait for a table in host memory. The first
// copies are of tokens that earlier passes wrote, so they begin while the kernels ahead, up to the one that
// writes this pass's K and V, still run.
#include <algorithm>

#include "kernels/device/cuda/launch.cuh"
#include "kernels/ops/attention_cuda.cuh"

namespace sluice::kernels::detail {
namespace {

constexpr int kChunkPages = 8;
constexpr int kMaxPages = kChunkPages + kChunkPages / 2;
constexpr int kQueries = 8;     // of one CTA
constexpr int kRunTokens = 16;  // of one step of a warp
constexpr int kRunsPerPage = kKvPageTokens / kRunTokens;

template <int kDim_, bool kExact_>
struct Tile {
  static constexpr int kDim = kDim_;       // head_dim, rounded up
  static constexpr bool kExact = kExact_;  // head_dim is kDim
  static constexpr int kPitch = row_pitch(kDim);
  static constexpr int kWarps = kDim > 128 ? 2 : 4, kThreads = 32 * kWarps;
  static constexpr int kRunBytes = kRunTokens * kPitch;  // of K, and of V
  // About 70 KB a CTA, so that three share a Hopper SM and one fits wherever a CTA gets 99 KB.
  static constexpr int kStages = kDim <= 64 ? 4 : kDim <= 80 ? 3 : 2;
  static constexpr int kSharedBytes = kWarps * kStages * 2 * kRunBytes;
  static constexpr int kSumPitch = kDim + 4;  // fp32; spreads the 4 query pairs of a store over the banks
  static_assert(kWarps * kQueries * kSumPitch * 4 <= kSharedBytes);
};

struct Chunk {
  const std::byte* pages[kMaxPages];
  std::int32_t num_tokens;
  std::int32_t num_settled;  // those in front that no kernel of this pass writes
  std::int32_t row;          // of q and out
  std::int32_t slot;         // of the workspace, or -1: the only chunk writes the output itself
};

/// What a sequence of several chunks left in the workspace.
struct Partials {
  float* out;     // [slot, num_heads, head_dim]
  float2* stats;  // [slot, num_heads]: max * scale * log2(e), sum
};

struct Params {
  static constexpr std::size_t kMaxChunks = 128;
  Activations activations;
  Partials partials;
  float scale_log2;
  int num_heads, num_kv_heads, head_dim;
  int group, group_tiles;  // query heads of a KV head, and CTAs for them
  bool paired_q;           // q can be read two elements at a time
  Chunk chunks[kMaxChunks];
};
static_assert(sizeof(Params) <= 32764);  // what a kernel takes

struct Merge {
  std::int32_t first_slot, num_slots, row;
};

struct MergeParams {
  static constexpr std::size_t kMaxMerges = Params::kMaxChunks / 2;
  Activations activations;
  Partials partials;
  int num_heads, head_dim;
  Merge merges[kMaxMerges];
};

template <class T>
__device__ void start_run(const Params& p, const Chunk& chunk, int run, int kv_head, std::uint32_t to,
                          std::uint64_t policy) {
  const int pieces = T::kExact ? T::kDim / 8 : p.head_dim / 8;
  const std::byte* k =
      chunk.pages[run / kRunsPerPage] +
      static_cast<std::int64_t>(kv_head * kRunsPerPage + run % kRunsPerPage) * (kRunTokens * 16) * pieces;
  const std::byte* v = k + static_cast<std::int64_t>(p.num_kv_heads) * (kKvPageTokens * 16) * pieces;
  const int valid_pieces =
      (chunk.num_tokens - run * kRunTokens) * pieces;  // behind them is what was never written
#pragma unroll
  for (int first = 0; first < kRunTokens * T::kDim / 8; first += 32) {
    const int i = first + static_cast<int>(threadIdx.x % 32);
    if (!T::kExact && i >= kRunTokens * pieces) break;
    const std::uint32_t at = to + i / pieces * T::kPitch + i % pieces * 16;
    copy_async(at, k + i * 16, i < valid_pieces ? 16 : 0, policy);
    copy_async(at + T::kRunBytes, v + i * 16, i < valid_pieces ? 16 : 0, policy);
  }
}

/// q of the CTA's queries as the B operand: b[kk][j] holds q[lane / 4][16 kk + 8 j + 2 (lane % 4) + {0, 1}].
template <class T>
__device__ void read_queries(const Params& p, const std::uint16_t* q, int queries,
                             std::uint32_t (&b)[T::kDim / 16][2]) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const std::uint16_t* row = q + lane / 4 * p.head_dim;
#pragma unroll
  for (int kk = 0; kk < T::kDim / 16; ++kk) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int i = 16 * kk + 8 * j + 2 * (lane % 4);
      std::uint32_t pair = 0;
      if (lane / 4 < queries && (T::kExact || i < p.head_dim)) {
        pair = p.paired_q ? *reinterpret_cast<const std::uint32_t*>(row + i)
                          : row[i] | static_cast<std::uint32_t>(row[i + 1]) << 16;
      }
      b[kk][j] = activations_to_half2(pair, p.activations.is_bf16);
    }
  }
}

__device__ float max_over_tokens(float x) {
#pragma unroll
  for (int lanes = 4; lanes < 32; lanes *= 2) x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFU, x, lanes));
  return x;
}
__device__ float sum_over_tokens(float x) {
#pragma unroll
  for (int lanes = 4; lanes < 32; lanes *= 2) x += __shfl_xor_sync(0xFFFFFFFFU, x, lanes);
  return x;
}

/// A warp's share of the softmax of 8 queries. A lane has queries 2 (lane % 4) + {0, 1}.
template <class T>
struct State {
  float out[T::kDim / 16][4] = {};        // O^T: rows lane / 4 + {0, 8} of 16 dimensions, both queries
  float max[2] = {-INFINITY, -INFINITY};  // of the unscaled scores
  float sum[2] = {0, 0};                  // of this lane's tokens

  __device__ void attend(std::uint32_t k, std::uint32_t v, const std::uint32_t (&q)[T::kDim / 16][2],
                         int tokens, float scale_log2) {
    const int lane = static_cast<int>(threadIdx.x % 32);
    // 1. S^T. Two chains of accumulation halve the latency.
    float s[2][4] = {};
#pragma unroll
    for (int kk = 0; kk < T::kDim / 16; ++kk) {
      std::uint32_t a[4];
      load_matrices(a, k + lane % 16 * T::kPitch + (2 * kk + lane / 16) * 16);
      multiply_add<__half>(s[kk % 2], a, q[kk][0], q[kk][1]);
    }
    float score[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      score[i] = lane / 4 + i / 2 * 8 < tokens ? s[0][i] + s[1][i] : -INFINITY;
    }
    // 2. Probabilities relative to the largest score so far.
    bool grown = false;
    float factor[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float largest = fmaxf(max[i], max_over_tokens(fmaxf(score[i], score[i + 2])));
      factor[i] = exp2_fast((max[i] - largest) * scale_log2);
      grown |= largest > max[i];
      max[i] = largest;
      const float shift = largest * scale_log2;
      score[i] = exp2_fast(fmaf(score[i], scale_log2, -shift));
      score[i + 2] = exp2_fast(fmaf(score[i + 2], scale_log2, -shift));
      sum[i] = sum[i] * factor[i] + (score[i] + score[i + 2]);
    }
    if (__any_sync(0xFFFFFFFFU, grown)) {
#pragma unroll
      for (auto& o : out) {
#pragma unroll
        for (int i = 0; i < 4; ++i) o[i] *= factor[i % 2];
      }
    }
    // 3. O^T += V^T P^T
    const std::uint32_t b0 = transpose(pack_half2(score[0], score[1]));
    const std::uint32_t b1 = transpose(pack_half2(score[2], score[3]));
#pragma unroll
    for (int mm = 0; mm < T::kDim / 16; ++mm) {
      std::uint32_t a[4];
      load_transposed(a, v + (lane % 8 + lane / 16 * 8) * T::kPitch + (2 * mm + lane / 8 % 2) * 16);
      multiply_add<__half>(out[mm], a, b0, b1);
    }
  }
};

template <class T>
__global__ void __launch_bounds__(T::kThreads) decode_kernel(const __grid_constant__ Params p) {
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ float2 stats[T::kWarps][kQueries];
  const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
  const Chunk& chunk = p.chunks[blockIdx.y];
  if constexpr (!T::kExact) {  // the columns behind head_dim are never written again
    for (int i = static_cast<int>(threadIdx.x) * 16; i < T::kSharedBytes; i += T::kThreads * 16) {
      *reinterpret_cast<uint4*>(shared + i) = make_uint4(0, 0, 0, 0);
    }
    __syncthreads();
  }

  const int kv_head = static_cast<int>(blockIdx.x) / p.group_tiles;
  const int first_query = static_cast<int>(blockIdx.x) % p.group_tiles * kQueries;
  const int queries = min(kQueries, p.group - first_query);
  const int first_head = kv_head * p.group + first_query;

  // 1. The warp's runs, kStages - 1 copies ahead; those of settled tokens before anything else.
  const std::uint32_t ring = shared_address(shared) + warp * (T::kStages * 2 * T::kRunBytes);
  const std::uint64_t policy = evict_first_policy();
  const int num_runs = (chunk.num_tokens + kRunTokens - 1) / kRunTokens;
  int ahead = warp;  // the next run to start
  int slot_ahead = 0;
  const auto start_next = [&] {
    if (ahead < num_runs)
      start_run<T>(p, chunk, ahead, kv_head, ring + slot_ahead * (2 * T::kRunBytes), policy);
    commit_copies();
    ahead += T::kWarps;
    slot_ahead = slot_ahead + 1 == T::kStages ? 0 : slot_ahead + 1;
  };
  int started = 0;
  while (started < T::kStages && (ahead + 1) * kRunTokens <= chunk.num_settled) start_next(), ++started;
  wait_for_kernels_before();
  let_next_kernel_start();
  for (; started < T::kStages; ++started) start_next();
  std::uint32_t q[T::kDim / 16][2];
  read_queries<T>(p,
                  p.activations.q + chunk.row * p.activations.q_stride +
                      static_cast<std::int64_t>(first_head) * p.head_dim,
                  queries, q);
  State<T> state;
  int slot = 0;
  for (int run = warp; run < num_runs; run += T::kWarps) {
    await_copies<T::kStages - 1>();
    __syncwarp();
    const std::uint32_t k = ring + slot * (2 * T::kRunBytes);
    state.attend(k, k + T::kRunBytes, q, chunk.num_tokens - run * kRunTokens, p.scale_log2);
    __syncwarp();
    start_next();
    slot = slot + 1 == T::kStages ? 0 : slot + 1;
  }

  // 2. The warps' shares, through shared memory.
  await_copies<0>();
  __syncthreads();
  float* const sums = reinterpret_cast<float*>(shared);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int query = 2 * (lane % 4) + i;
    const float sum = sum_over_tokens(state.sum[i]);
    if (lane < 4) stats[warp][query] = make_float2(state.max[i] * p.scale_log2, sum);
    if (query >= queries) continue;
    float* const to = sums + (warp * kQueries + query) * T::kSumPitch + lane / 4;
#pragma unroll
    for (int mm = 0; mm < T::kDim / 16; ++mm) {
      to[16 * mm] = state.out[mm][i];
      to[16 * mm + 8] = state.out[mm][i + 2];
    }
  }
  __syncthreads();
  const int dim = T::kExact ? T::kDim : p.head_dim;
  for (int at = static_cast<int>(threadIdx.x); at < queries * dim; at += T::kThreads) {
    const int query = at / dim, i = at % dim;
    float largest = stats[0][query].x;
#pragma unroll
    for (int w = 1; w < T::kWarps; ++w) largest = fmaxf(largest, stats[w][query].x);
    float out = 0, sum = 0;
#pragma unroll
    for (int w = 0; w < T::kWarps; ++w) {
      const float factor = exp2_fast(stats[w][query].x - largest);  // 0 for a warp without tokens
      out += factor * sums[(w * kQueries + query) * T::kSumPitch + i];
      sum += factor * stats[w][query].y;
    }
    const int head = first_head + query;
    if (chunk.slot < 0) {
      p.activations.out[chunk.row * p.activations.out_stride + static_cast<std::int64_t>(head) * dim + i] =
          float_to_activation(out / sum, p.activations.is_bf16);
      continue;
    }
    const std::int64_t partial = static_cast<std::int64_t>(chunk.slot) * p.num_heads + head;
    p.partials.out[partial * dim + i] = out;
    if (i == 0) p.partials.stats[partial] = make_float2(largest, sum);
  }
}

constexpr int kMergeThreads = 128;

/// The chunks of one sequence and query head, in their order.
__global__ void __launch_bounds__(kMergeThreads) merge_kernel(const __grid_constant__ MergeParams p) {
  wait_for_kernels_before();
  let_next_kernel_start();
  const Merge& merge = p.merges[blockIdx.y];
  const int head = static_cast<int>(blockIdx.x);
  const std::int64_t first = static_cast<std::int64_t>(merge.first_slot) * p.num_heads + head;
  float largest = -INFINITY;
  for (int c = 0; c < merge.num_slots; ++c) {
    largest = fmaxf(largest, p.partials.stats[first + static_cast<std::int64_t>(c) * p.num_heads].x);
  }
  for (int i = static_cast<int>(threadIdx.x); i < p.head_dim; i += kMergeThreads) {
    float out = 0, sum = 0;
    for (int c = 0; c < merge.num_slots; ++c) {
      const std::int64_t partial = first + static_cast<std::int64_t>(c) * p.num_heads;
      const float2 stats = p.partials.stats[partial];
      const float factor = exp2_fast(stats.x - largest);
      out += factor * p.partials.out[partial * p.head_dim + i];
      sum += factor * stats.y;
    }
    p.activations
        .out[merge.row * p.activations.out_stride + static_cast<std::int64_t>(head) * p.head_dim + i] =
        float_to_activation(out / sum, p.activations.is_bf16);
  }
}

template <class T>
void launch(const Params& p, dim3 grid, CudaStream& stream) {
  launch_overlapping(stream, decode_kernel<T>, grid, T::kThreads, T::kSharedBytes, p);
}

void launch_any(const Params& p, dim3 grid, CudaStream& stream) {
  switch (p.head_dim) {
    case 64:
      return launch<Tile<64, true>>(p, grid, stream);
    case 80:
      return launch<Tile<80, true>>(p, grid, stream);
    case 96:
      return launch<Tile<96, true>>(p, grid, stream);
    case 128:
      return launch<Tile<128, true>>(p, grid, stream);
    default:
      break;
  }
  if (p.head_dim < 64) return launch<Tile<64, false>>(p, grid, stream);
  if (p.head_dim < 128) return launch<Tile<128, false>>(p, grid, stream);
  return launch<Tile<256, false>>(p, grid, stream);
}

std::int64_t num_chunks_of(std::int64_t pages) {
  const std::int64_t whole = pages / kChunkPages;
  return std::max<std::int64_t>(1, whole + (pages % kChunkPages > kMaxPages - kChunkPages ? 1 : 0));
}

/// Segments on their way into launches, gathered on the stack: an operator allocates nothing.
class Launches {
 public:
  Launches(const AttentionArgs& args, CudaStream& stream) : stream_(stream) {
    const auto group = static_cast<int>(args.num_heads / args.layout.num_kv_heads);
    const std::int64_t slot_bytes =
        args.num_heads * (args.layout.head_dim * static_cast<std::int64_t>(sizeof(float)) +
                          static_cast<std::int64_t>(sizeof(float2)));
    max_slots_ = static_cast<std::int64_t>(stream.workspace().size()) / slot_bytes;
    auto* const sums = reinterpret_cast<float*>(stream.workspace().data());
    const Partials partials{
        sums, reinterpret_cast<float2*>(sums + max_slots_ * args.num_heads * args.layout.head_dim)};
    params_.activations = merge_params_.activations = lower_activations(args);
    params_.partials = merge_params_.partials = partials;
    params_.scale_log2 = args.scale * 1.4426950408889634F;
    params_.num_heads = merge_params_.num_heads = static_cast<int>(args.num_heads);
    params_.num_kv_heads = static_cast<int>(args.layout.num_kv_heads);
    params_.head_dim = merge_params_.head_dim = static_cast<int>(args.layout.head_dim);
    params_.group = group;
    params_.group_tiles = (group + kQueries - 1) / kQueries;
    params_.paired_q = rows_are_aligned(args.q.data, args.q.stride, 4);
  }

  void add(const PagedSegment& segment) {
    const std::int64_t tokens = std::max<std::int64_t>(segment.first_kv + 1, segment.full_prefix);
    const std::int64_t pages = kv_pages(tokens);
    const std::int64_t chunks = num_chunks_of(pages);
    if (chunks > max_slots_) refuse_sequence(tokens);
    if (num_merges_ == MergeParams::kMaxMerges || num_slots_ + chunks > max_slots_) enqueue();
    if (chunks > 1) {
      merge_params_.merges[num_merges_++] = {static_cast<std::int32_t>(num_slots_),
                                             static_cast<std::int32_t>(chunks), segment.first_row};
    }
    for (std::int64_t c = 0; c < chunks; ++c) {
      const std::int64_t begin = c * kChunkPages;
      const std::int64_t end = c + 1 == chunks ? pages : begin + kChunkPages;
      const auto tokens_before = [&](std::int64_t limit) {
        return static_cast<std::int32_t>(
            std::clamp<std::int64_t>(limit - begin * kKvPageTokens, 0, (end - begin) * kKvPageTokens));
      };
      if (num_chunks_ == Params::kMaxChunks) enqueue_chunks();
      Chunk& chunk = params_.chunks[num_chunks_++];
      chunk.num_tokens = tokens_before(tokens);
      chunk.num_settled = tokens_before(segment.first_kv);
      chunk.row = segment.first_row;
      chunk.slot = chunks == 1 ? -1 : static_cast<std::int32_t>(num_slots_++);
      std::copy(segment.pages + begin, segment.pages + end, chunk.pages);
    }
  }

  /// All that was added.
  void enqueue() {
    enqueue_chunks();
    if (num_merges_ > 0) {
      const dim3 grid(static_cast<unsigned>(params_.num_heads), static_cast<unsigned>(num_merges_));
      launch_overlapping(stream_, merge_kernel, grid, kMergeThreads, 0, merge_params_);
    }
    num_merges_ = 0;
    num_slots_ = 0;
  }

 private:
  void enqueue_chunks() {
    if (num_chunks_ == 0) return;
    // Neighbouring CTAs read neighbouring heads of the same pages.
    const dim3 grid(static_cast<unsigned>(params_.num_kv_heads * params_.group_tiles),
                    static_cast<unsigned>(num_chunks_));
    launch_any(params_, grid, stream_);
    num_chunks_ = 0;
  }

  CudaStream& stream_;
  std::int64_t max_slots_ = 0;
  std::size_t num_chunks_ = 0, num_merges_ = 0;
  std::int64_t num_slots_ = 0;
  Params params_{};
  MergeParams merge_params_{};
};

}  // namespace

void attention_decode_cuda(const AttentionArgs& args, Stream& any_stream) {
  const auto is_ours = [](const PagedSegment& segment) {
    return segment.kind == SegmentKind::kDecode && segment.num_rows > 0;
  };
  if (std::ranges::none_of(args.segments, is_ours)) return;
  Launches launches(args, as_cuda(any_stream));
  for (const PagedSegment& segment : args.segments) {
    if (is_ours(segment)) launches.add(segment);
  }
  launches.enqueue();
}

}  // namespace sluice::kernels::detail
