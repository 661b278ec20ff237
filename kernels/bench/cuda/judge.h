// The judge of a product on the device: random operands, an fp32 product by plain multiply-adds, and the
// comparison. CUDA builds only. Work is enqueued on `stream`; pointers are device memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <cuda_runtime_api.h>

namespace sluice::kernels {

/// fp16 values in (-1, 1) at full mantissa, the same every time; variance kJudgeVariance.
void fill_random_half(void* to, std::int64_t count, cudaStream_t stream);
inline constexpr double kJudgeVariance = 1.0 / 3.0;

/// reference[n, m] = sum_k x[n, k] w[m, k] and squares[m] = sum_k w[m, k]^2, fp16 operands, row-major, all in
/// fp32 by fused multiply-adds in the order of k.
void reference_product(const void* x, const void* w, float* reference, float* squares, std::int64_t rows,
                       std::int64_t out, std::int64_t in, cudaStream_t stream);

/// What a comparison found; zeroed by whoever passes it.
struct Judgement {
  float worst = 0;               ///< largest error over its tolerance
  std::uint32_t not_finite = 0;  ///< elements of y
  std::uint32_t strayed = 0;     ///< bytes of the guard that changed
};
/// Compares y [rows, out] of fp16 with the reference. Tolerance: y rounds its result, perhaps twice (2^-10 of
/// it, 2^-24 near zero); a sum over `in` products in fp32, 16 at a time as tensor cores do, loses at most
/// 2^-23 of a partial sum each time, and a partial sum of random products is below four standard deviations
/// of the whole: in / 16 * 2^-23 * 4 sqrt(variance of x * squares). A lost product of 49152 exceeds it.
void judge_product(const void* y, const float* reference, const float* squares, std::int64_t rows,
                   std::int64_t out, std::int64_t in, Judgement* judgement, cudaStream_t stream);
/// Counts bytes of [guard, guard + bytes) that are not `poison`.
void judge_guard(const void* guard, std::int64_t bytes, std::uint8_t poison, Judgement* judgement,
                 cudaStream_t stream);
/// not_finite counts elements of 16 bits in which the two differ.
void judge_equal(const void* values, const void* expected, std::int64_t count, Judgement* judgement,
                 cudaStream_t stream);

/// to [cols, rows] = from [rows, cols] transposed, 16-bit elements.
void transpose(const void* from, void* to, std::int64_t rows, std::int64_t cols, cudaStream_t stream);

/// Keeps the device busy for this long, so that what is enqueued meanwhile runs without gaps.
void spin(double seconds, cudaStream_t stream);

}  // namespace sluice::kernels
