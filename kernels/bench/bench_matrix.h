// Matrices for measurements: fp16 values with zeros at random places, the same on every machine. Thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace sluice::kernels {

class ThreadPool;

/// Fills `out`, element i with a value within [-0.25, 0.25] that depends on i alone and is not zero; about
/// the share `sparsity` of them is then made zero. What is zero at one sparsity is zero at every higher one.
void fill_bench_matrix(double sparsity, ThreadPool& pool, std::span<std::uint16_t> out);

/// The nonzeros of a [rows, cols] matrix in compressed sparse rows: values of row r, and their columns, are
/// [row_starts[r], row_starts[r + 1]).
struct CsrMatrix {
  std::vector<std::int32_t> row_starts, columns;
  std::vector<std::uint16_t> values;
  std::int64_t bytes() const;
};
/// Throws Error{kUnsupported} from 2^31 nonzeros on.
CsrMatrix to_csr(std::span<const std::uint16_t> values, std::int64_t rows, std::int64_t cols,
                 ThreadPool& pool);

}  // namespace sluice::kernels
