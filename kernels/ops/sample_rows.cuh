// Walks and sums over one row of logits by one block, for sample_cuda.cu. Every sum that decides about a
// token is one of integers, so its order is free.
#pragma once

#include <cstdint>

namespace sluice::kernels::detail {

inline constexpr int kSampleThreads = 1024;
inline constexpr int kSampleWarps = kSampleThreads / 32;
inline constexpr int kBuckets = 2048;
inline constexpr int kBucketBits = 11;
inline constexpr std::uint64_t kNoRank = ~std::uint64_t{0};

using Sum = unsigned long long;  // what atomicAdd takes

struct SampleShared {
  Sum bucket[kBuckets];
  Sum warp[kSampleWarps];
  double warp_double[kSampleWarps];
  std::uint64_t best;
  Sum found_before;
  int found, list_size;
};

/// One row. Its tokens are ordered by rank: a number that rises with falling logits and, among equal ones,
/// with the id, which is its low id_bits.
struct LogitRow {
  const float* logits;
  std::int32_t size;
  int id_bits;

  __device__ std::uint64_t rank(std::int32_t id, float logit) const {
    const std::uint32_t bits = logit == 0 ? 0U : __float_as_uint(logit);  // -0 equals 0
    const std::uint32_t rising = (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
    return std::uint64_t{~rising} << id_bits | static_cast<std::uint32_t>(id);
  }
  __device__ std::int32_t id_of(std::uint64_t rank) const {
    return static_cast<std::int32_t>(rank & ((std::uint64_t{1} << id_bits) - 1));
  }
  /// The rank of the last of all tokens, if its logit is -infinity.
  __device__ std::uint64_t last_rank() const {
    return std::uint64_t{0xFF800000U} << id_bits | ((std::uint64_t{1} << id_bits) - 1);
  }
};

/// Calls visit(i, x) for all tokens, x being one to four logits from token i on; each thread sees rising ids.
/// kInFlight quads are loaded before the first is visited.
template <int kInFlight, class Visit>
__device__ void for_each_logit(const LogitRow& row, Visit visit) {
  const int thread = static_cast<int>(threadIdx.x);
  const auto misaligned = static_cast<int>(reinterpret_cast<std::uintptr_t>(row.logits) % 16 / 4);
  const int head = min(row.size, (4 - misaligned) % 4);
  if (thread < head) {
    const float x[1] = {row.logits[thread]};
    visit(thread, x);
  }
  const auto* quads = reinterpret_cast<const float4*>(row.logits + head);
  const int num_quads = (row.size - head) / 4;
  for (int first = thread; first < num_quads; first += kInFlight * kSampleThreads) {
    float4 loaded[kInFlight];
#pragma unroll
    for (int q = 0; q < kInFlight; ++q) {
      if (first + q * kSampleThreads < num_quads) loaded[q] = __ldg(quads + first + q * kSampleThreads);
    }
#pragma unroll
    for (int q = 0; q < kInFlight; ++q) {
      if (first + q * kSampleThreads >= num_quads) break;
      const float x[4] = {loaded[q].x, loaded[q].y, loaded[q].z, loaded[q].w};
      visit(head + 4 * (first + q * kSampleThreads), x);
    }
  }
  const int tail = head + 4 * num_quads + thread;
  if (tail < row.size) {
    const float x[1] = {row.logits[tail]};
    visit(tail, x);
  }
}

/// The same, one token at a time.
template <class Visit>
__device__ void for_each_token(const LogitRow& row, Visit visit) {
  for_each_logit<1>(row, [&]<int n>(int i, const float(&x)[n]) {
#pragma unroll
    for (int j = 0; j < n; ++j) visit(i + j, x[j]);
  });
}

__device__ inline std::uint64_t block_min(std::uint64_t x, SampleShared& shared) {
  for (int distance = 16; distance > 0; distance /= 2) {
    x = min(x, static_cast<std::uint64_t>(__shfl_xor_sync(0xFFFFFFFFU, static_cast<Sum>(x), distance)));
  }
  if (threadIdx.x % 32 == 0) shared.warp[threadIdx.x / 32] = x;
  __syncthreads();
  std::uint64_t result = kNoRank;
  for (const Sum warp : shared.warp) result = min(result, static_cast<std::uint64_t>(warp));
  __syncthreads();
  return result;
}

/// In a fixed order.
__device__ inline double block_sum(double x, SampleShared& shared) {
  for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(0xFFFFFFFFU, x, distance);
  if (threadIdx.x % 32 == 0) shared.warp_double[threadIdx.x / 32] = x;
  __syncthreads();
  double result = 0;
  for (const double warp : shared.warp_double) result += warp;
  __syncthreads();
  return result;
}

/// The sum over the threads before this one; `total` is that over all.
__device__ inline Sum block_exclusive_sum(Sum x, Sum& total, SampleShared& shared) {
  const unsigned lane = threadIdx.x % 32;
  Sum inclusive = x;
#pragma unroll
  for (unsigned distance = 1; distance < 32; distance *= 2) {
    const Sum lower = __shfl_up_sync(0xFFFFFFFFU, inclusive, distance);
    if (lane >= distance) inclusive += lower;
  }
  if (lane == 31) shared.warp[threadIdx.x / 32] = inclusive;
  __syncthreads();
  Sum before = 0;
  total = 0;
  for (unsigned warp = 0; warp < kSampleWarps; ++warp) {
    if (warp < threadIdx.x / 32) before += shared.warp[warp];
    total += shared.warp[warp];
  }
  __syncthreads();
  return before + inclusive - x;
}

/// Adds `value` (below 2^46) to a bucket. Equal logits, all in one bucket, would queue for it: where the
/// lanes here agree, one adds for all.
__device__ inline void add_to_bucket(Sum* buckets, unsigned bucket, Sum value) {
  const unsigned lanes = __activemask();
  int agree = 0;
  (void)__match_all_sync(lanes, bucket, &agree);
  if (agree == 0) {
    atomicAdd(buckets + bucket, value);
    return;
  }
  const Sum low =
      __reduce_add_sync(lanes, static_cast<unsigned>(value & 0x7FFFFFU));  // 23 bits each: no overflow
  const Sum high = __reduce_add_sync(lanes, static_cast<unsigned>(value >> 23));
  if (threadIdx.x % 32 == static_cast<unsigned>(__ffs(static_cast<int>(lanes)) - 1))
    atomicAdd(buckets + bucket, (high << 23) + low);
}

/// The rank of the token at which the sum of value(logit) over the tokens of ranks [first, last], taken in
/// that order, reaches target_of(sum of all), which lies in [1, sum of all]. `list` has room for all tokens.
///
/// Halves the digits: a histogram over the range in 2048 buckets tells the bucket, which is the next range.
/// What remains in it after the first walk over the row is small as a rule and goes to `list`.
template <class Value, class Target>
__device__ std::uint64_t rank_that_reaches(const LogitRow& row, std::uint64_t first, std::uint64_t last,
                                           std::uint64_t* list, SampleShared& shared, Value value,
                                           Target target_of) {
  Sum before = 0;
  Sum target = 0;
  for (int round = 0; first < last; ++round) {
    const int range_bits = 64 - __clzll(static_cast<long long>(last - first));
    const int shift = max(0, range_bits - kBucketBits);
    const auto add = [&](std::uint64_t rank, float logit) {
      if (rank < first || rank > last) return;
      const Sum amount = value(logit);
      if (amount > 0) add_to_bucket(shared.bucket, static_cast<unsigned>((rank - first) >> shift), amount);
    };
    for (int i = static_cast<int>(threadIdx.x); i < kBuckets; i += kSampleThreads) shared.bucket[i] = 0;
    if (threadIdx.x == 0 && round == 1) shared.list_size = 0;
    __syncthreads();
    if (round == 0) {
      for_each_token(row, [&](int i, float x) { add(row.rank(i, x), x); });
    } else {
      if (round == 1) {
        for_each_token(row, [&](int i, float x) {
          const std::uint64_t rank = row.rank(i, x);
          if (rank >= first && rank <= last) list[atomicAdd(&shared.list_size, 1)] = rank;
        });
        __syncthreads();
      }
      for (int i = static_cast<int>(threadIdx.x); i < shared.list_size; i += kSampleThreads)
        add(list[i], row.logits[row.id_of(list[i])]);
    }
    __syncthreads();

    static_assert(kBuckets == 2 * kSampleThreads);
    const Sum mine[2] = {shared.bucket[2 * threadIdx.x], shared.bucket[2 * threadIdx.x + 1]};
    Sum total = 0;
    Sum reached = before + block_exclusive_sum(mine[0] + mine[1], total, shared);
    if (round == 0) target = target_of(total);
    for (int j = 0; j < 2; ++j) {
      if (reached < target && target <= reached + mine[j]) {
        shared.found = static_cast<int>(2 * threadIdx.x) + j;
        shared.found_before = reached;
      }
      reached += mine[j];
    }
    __syncthreads();
    before = shared.found_before;
    first += static_cast<std::uint64_t>(shared.found) << shift;
    last = min(last, first + (std::uint64_t{1} << shift) - 1);
    __syncthreads();
  }
  return first;
}

/// The token, by rising id, within whose value(id, logit) the sum exceeds target_of(sum of all); -1 if none
/// does.
template <class Value, class Target>
__device__ std::int32_t token_that_exceeds(const LogitRow& row, SampleShared& shared, Value value,
                                           Target target_of) {
  // 1. Each warp sums a stretch of the row.
  const int stretch = (row.size + kSampleWarps - 1) / kSampleWarps;
  const int begin = static_cast<int>(threadIdx.x / 32) * stretch;
  const int end = min(row.size, begin + stretch);
  Sum mine = 0;
#pragma unroll 4
  for (int i = begin + static_cast<int>(threadIdx.x % 32); i < end; i += 32) mine += value(i, row.logits[i]);
  if (threadIdx.x == 0) shared.found = -1;
  Sum total = 0;
  const Sum before = block_exclusive_sum(mine, total, shared);
  const Sum target = target_of(total);
  // The stretch is that of the last warp whose sums begin at or below the target.
  if (threadIdx.x % 32 == 0) shared.warp[threadIdx.x / 32] = before;
  __syncthreads();
  int warp = 0;
  for (int w = 1; w < kSampleWarps; ++w) {
    if (shared.warp[w] <= target) warp = w;
  }
  Sum mass = shared.warp[warp];
  __syncthreads();

  // 2. All threads walk that stretch.
  const int walk_end = min(row.size, (warp + 1) * stretch);
  for (int tile = warp * stretch; tile < walk_end; tile += kSampleThreads) {
    const int i = tile + static_cast<int>(threadIdx.x);
    const Sum amount = i < walk_end ? value(i, row.logits[i]) : 0;
    Sum in_tile = 0;
    const Sum reached = mass + block_exclusive_sum(amount, in_tile, shared);
    if (reached <= target && target < reached + amount) shared.found = i;
    mass += in_tile;
  }
  __syncthreads();
  return shared.found;
}

}  // namespace sluice::kernels::detail
