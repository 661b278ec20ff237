// Dense formats: every element as fp16 or bf16, row-major. The functions behind their rows in the table of
// formats (kernels/format/format.h). Pure functions, thread-safe.
#pragma once

#include "kernels/format/format.h"

namespace sluice::kernels {

std::int64_t dense_row_granule(std::int64_t cols);
std::int64_t dense_max_run_bytes(std::int64_t num_rows, std::int64_t cols);
std::int64_t encode_dense(const RowRun& run, std::span<std::byte> out, TileSizes& sizes);
void check_dense(const WeightView& weight, const std::string& tensor_name);
void expand_dense(const WeightView& weight, std::int64_t first_row, std::int64_t num_rows,
                  std::span<std::uint16_t> out);

namespace detail {

// SIMD loops over `count` elements. Those that narrow return whether every result is finite.
bool narrow_to_f16(const float* in, std::int64_t count, Half* out);
bool narrow_to_bf16(const float* in, std::int64_t count, BFloat16* out);
/// `out` may be `in`.
bool copy_f16(const Half* in, std::int64_t count, Half* out);
bool copy_bf16(const BFloat16* in, std::int64_t count, BFloat16* out);
void widen_f16(const Half* in, std::int64_t count, float* out);
void widen_bf16(const BFloat16* in, std::int64_t count, float* out);
/// Rounds to odd, so that rounding the result once more, to 16 bits, is as exact as rounding once.
void round_f64(const double* in, std::int64_t count, float* out);

}  // namespace detail
}  // namespace sluice::kernels
