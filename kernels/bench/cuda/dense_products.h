// Dense products of the peers: cublasGemmEx, and the fastest of eight algorithms that cuBLASLt proposes. CUDA
// builds only. y = x W^T with row-major fp16 operands and fp32 sums. Used by one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include <cuda_runtime_api.h>

#include "kernels/bench/cuda/cold_timer.h"

namespace sluice::kernels {

struct DenseOperands {
  const void *x = nullptr, *weight = nullptr;
  void* y = nullptr;
  std::int64_t rows = 0, out = 0, in = 0;
};

/// Either library's products, on one stream with one workspace (borrowed).
class DenseProduct {
 public:
  virtual ~DenseProduct() = default;
  virtual void run(const DenseOperands& operands) = 0;
};

/// "13.1.0"; throws Error{kNotFound} if libcublas is not there.
class Cublas : public DenseProduct {
 public:
  Cublas(cudaStream_t stream, void* workspace, std::int64_t workspace_bytes);
  ~Cublas() override;
  void run(const DenseOperands& operands) override;
  std::string version() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

class CublasLt : public DenseProduct {
 public:
  CublasLt(cudaStream_t stream, void* workspace, std::int64_t workspace_bytes);
  ~CublasLt() override;
  /// From here on `run` takes products of this shape. `operands_of(copy)` gives some to measure with. Throws
  /// Error{kUnsupported} if cuBLASLt has no algorithm.
  void choose(ColdTimer& timer, int copies, const std::function<DenseOperands(int copy)>& operands_of);
  void run(const DenseOperands& operands) override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sluice::kernels
