// Tiling. One block per row: a row of logits is 200 to 600 KB, just written and in L2, and a decode step has
// some dozens of rows. One walk gives the maximum and the log-sum-exp; greedy rows end there. Top-k, top-p
// and the most likely tokens each find the last rank that they keep (sample_rows.cuh), a draw then walks the
// row by rising id. Compiled without fused multiply-adds: see core/sampling/softmax_weight.h.
#include <cfloat>
#include <limits>

#include "core/sampling/softmax_weight.h"
#include "kernels/device/cuda/cuda_stream.h"
#include "kernels/ops/cuda_kernels.h"
#include "kernels/ops/sample_rows.cuh"

namespace sluice::kernels {
namespace {

using namespace detail;

constexpr float kLowest = -std::numeric_limits<float>::infinity();
constexpr float kGreedyTemperature = 1e-5F;  // as core/sampling/sampling.cc

struct Params {
  const float* logits;
  std::int64_t logits_stride;
  const SampleRow* rows;
  SampledRow* results;
  ScoredToken* top;
  std::int64_t top_stride;
  std::uint64_t* scratch;  // scratch_stride per row
  std::int64_t scratch_stride;
  std::int32_t valid_vocab, max_top;
  int id_bits;
};

struct Summary {
  bool has_nan;
  std::uint64_t best;  // rank of the first token; kNoRank if every logit is -infinity
  double log_sum_exp;
};

/// Sums of exponentials of up to four logits are taken in fp32, relative to the largest seen so far, and join
/// each other in double.
__device__ Summary summarize(const LogitRow& row, SampleShared& shared) {
  float largest = -FLT_MAX;  // finite, so that the distance of -infinity to it is a number
  std::int32_t id = -1;
  double sum = 0;
  bool has_nan = false;
  for_each_logit<4>(row, [&]<int n>(int i, const float(&x)[n]) {
    float first = x[0];
#pragma unroll
    for (int j = 1; j < n; ++j) first = fmaxf(first, x[j]);
    if (first > largest || (id < 0 && first == largest)) {
      sum *= static_cast<double>(expf(largest - first));
      largest = first;
#pragma unroll
      for (int j = n - 1; j >= 0; --j) {
        if (x[j] == first) id = i + j;
      }
    }
    float terms = 0;
#pragma unroll
    for (int j = 0; j < n; ++j) {
      has_nan |= x[j] != x[j];
      terms += expf(x[j] - largest);
    }
    sum += static_cast<double>(terms);
  });

  Summary result{};
  result.has_nan = __syncthreads_or(has_nan) != 0;
  result.best = block_min(id < 0 ? kNoRank : row.rank(id, largest), shared);
  if (result.has_nan) return result;
  const float overall = result.best == kNoRank ? kLowest : row.logits[row.id_of(result.best)];
  const double shift = static_cast<double>(largest) - static_cast<double>(overall);
  const double all = block_sum(sum * exp(shift), shared);
  result.log_sum_exp = isinf(overall) ? overall : static_cast<double>(overall) + log(all);
  return result;
}

/// The last rank that top-k and top-p keep.
__device__ std::uint64_t last_kept(const LogitRow& row, const SamplingParams& params, std::uint64_t best,
                                   const SoftmaxWeight& weight, std::uint64_t* list, SampleShared& shared) {
  std::uint64_t last = row.last_rank();
  if (params.top_k > 0 && params.top_k < row.size) {
    last = rank_that_reaches(
        row, best, last, list, shared, [](float) { return Sum{1}; },
        [&](Sum) { return static_cast<Sum>(params.top_k); });
  }
  if (params.top_p < 1.0F) {
    last = rank_that_reaches(
        row, best, last, list, shared, [&](float logit) { return static_cast<Sum>(weight(logit)); },
        [&](Sum total) { return static_cast<Sum>(top_p_target(total, params.top_p)); });
  }
  return last;
}

__device__ std::int32_t choose(const LogitRow& row, const SampleRow& wanted, std::uint64_t best,
                               std::uint64_t* list, SampleShared& shared) {
  if (best == kNoRank) return kNanToken;
  const SamplingParams& params = wanted.params;
  if (!params.do_sample || params.temperature < kGreedyTemperature) return row.id_of(best);
  const SoftmaxWeight weight{row.logits[row.id_of(best)], 1.0 / static_cast<double>(params.temperature)};
  const std::uint64_t last = last_kept(row, params, best, weight, list, shared);
  const std::int32_t token = token_that_exceeds(
      row, shared,
      [&](int id, float logit) {
        return row.rank(id, logit) <= last ? static_cast<Sum>(weight(logit)) : Sum{0};
      },
      [&](Sum total) { return static_cast<Sum>(draw_target(total, wanted.draw)); });
  return token < 0 ? kNanToken : token;
}

/// The `count` first tokens, in order. `list` has room for all tokens.
template <class LogProb>
__device__ void write_top(const LogitRow& row, std::int32_t count, std::uint64_t best, std::uint64_t* list,
                          SampleShared& shared, ScoredToken* top, LogProb logprob) {
  std::uint64_t last = row.last_rank();
  if (count < row.size) {
    last = rank_that_reaches(
        row, best == kNoRank ? 0 : best, last, list, shared, [](float) { return Sum{1}; },
        [&](Sum) { return static_cast<Sum>(count); });
  }
  if (threadIdx.x == 0) shared.list_size = 0;
  __syncthreads();
  for_each_token(row, [&](int i, float x) {
    const std::uint64_t rank = row.rank(i, x);
    if (rank <= last) list[atomicAdd(&shared.list_size, 1)] = rank;
  });
  __syncthreads();
  const int size = shared.list_size;
  for (int i = static_cast<int>(threadIdx.x); i < size; i += kSampleThreads) {
    const std::uint64_t rank = list[i];
    int place = 0;
    for (int j = 0; j < size; ++j) place += list[j] < rank ? 1 : 0;
    const std::int32_t id = row.id_of(rank);
    top[place] = {id, logprob(row.logits[id])};
  }
  __syncthreads();
}

__global__ void __launch_bounds__(kSampleThreads) sample_kernel(const __grid_constant__ Params p) {
  __shared__ SampleShared shared;
  const std::int64_t index = blockIdx.x;
  const LogitRow row{p.logits + index * p.logits_stride, p.valid_vocab, p.id_bits};
  const SampleRow wanted = p.rows[index];
  std::uint64_t* list = p.scratch + index * p.scratch_stride;

  const Summary summary = summarize(row, shared);
  SampledRow result;
  if (summary.has_nan) {
    result.token_id = kNanToken;
    if (threadIdx.x == 0) p.results[index] = result;
    return;
  }
  const auto logprob = [&](float logit) { return static_cast<float>(logit - summary.log_sum_exp); };
  if (wanted.choose) {
    result.token_id = choose(row, wanted, summary.best, list, shared);
    if (result.token_id >= 0) result.token_logprob = logprob(row.logits[result.token_id]);
  }
  if (wanted.target_id >= 0)
    result.target_logprob = wanted.target_id < row.size ? logprob(row.logits[wanted.target_id]) : kLowest;
  const std::int32_t num_top = min(wanted.num_top, p.max_top);
  if (num_top > 0) {
    ScoredToken* top = p.top + index * p.top_stride;
    write_top(row, min(num_top, row.size), summary.best, list, shared, top, logprob);
    for (int i = row.size + static_cast<int>(threadIdx.x); i < num_top; i += kSampleThreads)
      top[i] = {-1, kLowest};
  }
  if (threadIdx.x == 0) p.results[index] = result;
}

int bits_for_ids(std::int64_t size) {
  int bits = 1;
  while ((std::int64_t{1} << bits) < size) ++bits;
  return bits;
}

}  // namespace

namespace detail {

void sample_cuda(const SampleArgs& args, Stream& stream) {
  if (args.logits.rows == 0) return;
  static_assert(sizeof(ScoredToken) == sizeof(std::uint64_t));  // sample_scratch_bytes holds one per token
  const Params p{.logits = reinterpret_cast<const float*>(args.logits.data),
                 .logits_stride = args.logits.stride,
                 .rows = args.rows.data(),
                 .results = args.results.data(),
                 .top = args.top.data,
                 .top_stride = args.top.stride,
                 .scratch = reinterpret_cast<std::uint64_t*>(args.scratch.data()),
                 .scratch_stride = args.logits.cols,
                 .valid_vocab = static_cast<std::int32_t>(args.valid_vocab),
                 .max_top = args.top.data == nullptr ? 0 : static_cast<std::int32_t>(args.top.cols),
                 .id_bits = bits_for_ids(args.valid_vocab)};
  sample_kernel<<<static_cast<unsigned>(args.logits.rows), kSampleThreads, 0, as_cuda(stream).raw()>>>(p);
  CUDA_CHECK(cudaGetLastError());
}

}  // namespace detail
}  // namespace sluice::kernels
