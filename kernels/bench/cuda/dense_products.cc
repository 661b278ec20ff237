#include "kernels/bench/cuda/dense_products.h"

#include <array>

#include <cublasLt.h>
#include <cublas_v2.h>

#include "core/error.h"
#include "kernels/bench/cuda/shared_library.h"
#include "kernels/device/cuda/handle.h"

namespace sluice::kernels {

// Both libraries' matrices are column-major, so y^T = W x^T with W transposed.

namespace {
/// The C function; the header overloads its name for C++.
using GemmEx = cublasStatus_t(cublasHandle_t, cublasOperation_t, cublasOperation_t, int m, int n, int k,
                              const void* alpha, const void* a, cudaDataType, int lda, const void* b,
                              cudaDataType, int ldb, const void* beta, void* c, cudaDataType, int ldc,
                              cublasComputeType_t, cublasGemmAlgo_t);
}  // namespace

struct Cublas::State {
  State() : library(fmt::format("libcublas.so.{}", CUBLAS_VER_MAJOR)) {
    library.find("cublasCreate_v2", create);
    library.find("cublasDestroy_v2", destroy);
    library.find("cublasSetStream_v2", set_stream);
    library.find("cublasSetWorkspace_v2", set_workspace);
    library.find("cublasGemmEx", gemm);
    library.find("cublasGetVersion_v2", get_version);
  }
  ~State() {
    if (handle != nullptr) destroy(handle);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  SharedLibrary library;
  decltype(cublasCreate_v2)* create = nullptr;
  decltype(cublasDestroy_v2)* destroy = nullptr;
  decltype(cublasSetStream_v2)* set_stream = nullptr;
  decltype(cublasSetWorkspace_v2)* set_workspace = nullptr;
  GemmEx* gemm = nullptr;
  decltype(cublasGetVersion_v2)* get_version = nullptr;
  cublasHandle_t handle = nullptr;
};

Cublas::Cublas(cudaStream_t stream, void* workspace, std::int64_t workspace_bytes)
    : state_(std::make_unique<State>()) {
  CUBLAS_CHECK(state_->create(&state_->handle));
  CUBLAS_CHECK(state_->set_stream(state_->handle, stream));
  CUBLAS_CHECK(state_->set_workspace(state_->handle, workspace, static_cast<std::size_t>(workspace_bytes)));
}

Cublas::~Cublas() = default;

std::string Cublas::version() const {
  int number = 0;
  CUBLAS_CHECK(state_->get_version(state_->handle, &number));
  return fmt::format("{}.{}.{}", number / 10000, number / 100 % 100, number % 100);
}

void Cublas::run(const DenseOperands& o) {
  const float alpha = 1;
  const float beta = 0;
  const auto in = static_cast<int>(o.in);
  const auto out = static_cast<int>(o.out);
  CUBLAS_CHECK(state_->gemm(state_->handle, CUBLAS_OP_T, CUBLAS_OP_N, out, static_cast<int>(o.rows), in,
                            &alpha, o.weight, CUDA_R_16F, in, o.x, CUDA_R_16F, in, &beta, o.y, CUDA_R_16F,
                            out, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
}

struct CublasLt::State {
  cudaStream_t stream = nullptr;
  void* workspace = nullptr;
  std::size_t workspace_bytes = 0;
  UniqueCublasLt handle;
  cublasLtMatmulDescOpaque_t product{};
  cublasLtMatrixLayoutOpaque_t weight{}, x{}, y{};
  cublasLtMatmulAlgo_t algorithm{};

  void run(const DenseOperands& o, const cublasLtMatmulAlgo_t& chosen) {
    const float alpha = 1;
    const float beta = 0;
    CUBLAS_CHECK(cublasLtMatmul(handle.get(), &product, &alpha, o.weight, &weight, o.x, &x, &beta, o.y, &y,
                                o.y, &y, &chosen, workspace, workspace_bytes, stream));
  }
};

CublasLt::CublasLt(cudaStream_t stream, void* workspace, std::int64_t workspace_bytes)
    : state_(std::make_unique<State>()) {
  cublasLtHandle_t handle = nullptr;
  CUBLAS_CHECK(cublasLtCreate(&handle));
  state_->handle.reset(handle);
  state_->stream = stream;
  state_->workspace = workspace;
  state_->workspace_bytes = static_cast<std::size_t>(workspace_bytes);
}

CublasLt::~CublasLt() = default;

void CublasLt::choose(ColdTimer& timer, int copies,
                      const std::function<DenseOperands(int copy)>& operands_of) {
  State& s = *state_;
  const DenseOperands first = operands_of(0);
  const auto rows = static_cast<std::uint64_t>(first.rows);
  const auto out = static_cast<std::uint64_t>(first.out);
  const auto in = static_cast<std::uint64_t>(first.in);
  CUBLAS_CHECK(cublasLtMatmulDescInit(&s.product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  const cublasOperation_t transposed = CUBLAS_OP_T;
  CUBLAS_CHECK(cublasLtMatmulDescSetAttribute(&s.product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                              sizeof(transposed)));
  CUBLAS_CHECK(cublasLtMatrixLayoutInit(&s.weight, CUDA_R_16F, in, out, first.in));
  CUBLAS_CHECK(cublasLtMatrixLayoutInit(&s.x, CUDA_R_16F, in, rows, first.in));
  CUBLAS_CHECK(cublasLtMatrixLayoutInit(&s.y, CUDA_R_16F, out, rows, first.out));
  cublasLtMatmulPreferenceOpaque_t preference{};
  CUBLAS_CHECK(cublasLtMatmulPreferenceInit(&preference));
  CUBLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(&preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                    &s.workspace_bytes, sizeof(s.workspace_bytes)));
  std::array<cublasLtMatmulHeuristicResult_t, 8> candidates{};
  int found = 0;
  CUBLAS_CHECK(cublasLtMatmulAlgoGetHeuristic(s.handle.get(), &s.product, &s.weight, &s.x, &s.y, &s.y,
                                              &preference, static_cast<int>(candidates.size()),
                                              candidates.data(), &found));
  double best_sec = 0;
  for (int i = 0; i < found; ++i) {
    const auto& candidate = candidates[static_cast<std::size_t>(i)];
    if (candidate.state != CUBLAS_STATUS_SUCCESS) continue;
    constexpr int kSamples = 5;
    const ColdSamples samples = timer.time(s.stream, copies, kSamples, 10e-3,
                                           [&](int copy) { s.run(operands_of(copy), candidate.algo); });
    if (best_sec > 0 && samples.median_sec >= best_sec) continue;
    best_sec = samples.median_sec;
    s.algorithm = candidate.algo;
  }
  SLUICE_CHECK(best_sec > 0, Code::kUnsupported,
               fmt::format("cuBLASLt has no algorithm for {} x {} weights and {} rows", first.out, first.in,
                           first.rows),
               "");
}

void CublasLt::run(const DenseOperands& operands) { state_->run(operands, state_->algorithm); }

}  // namespace sluice::kernels
