// cuSPARSE's product over compressed sparse rows, fp16 with fp32 sums, by the algorithm and in the layout
// that its documentation recommends for speed (CSR_ALG2; the dense matrices with the rows of x side by side).
// CUDA builds only. Used by one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include <cuda_runtime_api.h>

namespace sluice::kernels {

class Cusparse {
 public:
  /// Throws Error{kNotFound} if libcusparse is not there.
  explicit Cusparse(cudaStream_t stream);
  ~Cusparse();
  std::string version() const;

  /// A [out, in] matrix in device memory, borrowed, 32-bit indices.
  struct Csr {
    std::int64_t out = 0, in = 0, nonzeros = 0;
    void *row_starts = nullptr, *columns = nullptr, *values = nullptr;
  };
  void set_matrix(const Csr& matrix);
  /// Operands of `run`: x transposed, [in, rows], and y transposed, [out, rows]. Returns the bytes of
  /// scratch.
  std::int64_t prepare(const void* x, void* y, std::int64_t rows);
  void run(std::span<std::byte> scratch);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sluice::kernels
