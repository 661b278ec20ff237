// A whole matrix into its format, and back, by all threads of a pool: for a matrix that lies in memory, where
// `convert` streams (encode_pipeline.h). The bytes are those of encode_matrix.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/format/format.h"

namespace sluice::kernels {

class ThreadPool;

class EncodedMatrix {
 public:
  /// `values` are rows * cols elements of `source` type (f16, bf16, f32 or f64), row-major, and free again
  /// when this returns. Throws Error{kInvalidArgument} naming tensor, row, column and value for NaN, infinity
  /// and what the format's type cannot hold.
  EncodedMatrix(const TensorSpec& tensor, WeightFormat format, DType source,
                std::span<const std::byte> values, ThreadPool& pool);

  std::int64_t bytes() const { return bytes_; }
  /// `out` has exactly bytes().
  void write(std::span<std::byte> out, ThreadPool& pool) const;

 private:
  std::vector<std::vector<std::byte>> runs_;
  std::vector<std::int64_t> starts_;  // of each run
  std::vector<std::byte> table_;
  std::int64_t bytes_ = 0;
};

/// The matrix as 16-bit values of its type, row-major; `out` has rows * cols.
void expand_matrix(const WeightView& weight, std::span<std::uint16_t> out, ThreadPool& pool);

}  // namespace sluice::kernels
