#include "kernels/bench/cuda/cusparse_product.h"

#include <cusparse.h>

#include "core/error.h"
#include "kernels/bench/cuda/shared_library.h"
#include "kernels/device/cuda/check.h"

namespace sluice::kernels {

struct Cusparse::State {
  State() : library(fmt::format("libcusparse.so.{}", CUSPARSE_VER_MAJOR)) {
    library.find("cusparseCreate", create);
    library.find("cusparseDestroy", destroy);
    library.find("cusparseSetStream", set_stream);
    library.find("cusparseGetVersion", get_version);
    library.find("cusparseGetErrorString", error_string);
    library.find("cusparseCreateConstCsr", create_csr);
    library.find("cusparseDestroySpMat", destroy_sparse);
    library.find("cusparseCreateDnMat", create_dense);
    library.find("cusparseDestroyDnMat", destroy_dense);
    library.find("cusparseSpMM_bufferSize", buffer_size);
    library.find("cusparseSpMM", multiply);
  }
  ~State() {
    reset_dense();
    reset_matrix();
    if (handle != nullptr) destroy(handle);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  void reset_matrix() {
    if (matrix != nullptr) destroy_sparse(matrix);
    matrix = nullptr;
  }
  void reset_dense() {
    if (x != nullptr) destroy_dense(x);
    if (y != nullptr) destroy_dense(y);
    x = y = nullptr;
  }
  void check(cusparseStatus_t status, const char* call) const {
    SLUICE_CHECK(status == CUSPARSE_STATUS_SUCCESS, Code::kDevice,
                 fmt::format("{}: {}", call, error_string(status)), "");
  }

  SharedLibrary library;
  decltype(cusparseCreate)* create = nullptr;
  decltype(cusparseDestroy)* destroy = nullptr;
  decltype(cusparseSetStream)* set_stream = nullptr;
  decltype(cusparseGetVersion)* get_version = nullptr;
  decltype(cusparseGetErrorString)* error_string = nullptr;
  decltype(cusparseCreateConstCsr)* create_csr = nullptr;
  decltype(cusparseDestroySpMat)* destroy_sparse = nullptr;
  decltype(cusparseCreateDnMat)* create_dense = nullptr;
  decltype(cusparseDestroyDnMat)* destroy_dense = nullptr;
  decltype(cusparseSpMM_bufferSize)* buffer_size = nullptr;
  decltype(cusparseSpMM)* multiply = nullptr;

  cusparseHandle_t handle = nullptr;
  cusparseConstSpMatDescr_t matrix = nullptr;
  std::int64_t out = 0, in = 0;
  cusparseDnMatDescr_t x = nullptr, y = nullptr;
};

namespace {
constexpr float kAlpha = 1;
constexpr float kBeta = 0;
constexpr cusparseSpMMAlg_t kAlgorithm = CUSPARSE_SPMM_CSR_ALG2;
}  // namespace

Cusparse::Cusparse(cudaStream_t stream) : state_(std::make_unique<State>()) {
  state_->check(state_->create(&state_->handle), "cusparseCreate");
  state_->check(state_->set_stream(state_->handle, stream), "cusparseSetStream");
}

Cusparse::~Cusparse() = default;

std::string Cusparse::version() const {
  int number = 0;
  state_->check(state_->get_version(state_->handle, &number), "cusparseGetVersion");
  return fmt::format("{}.{}.{}", number / 1000, number / 100 % 10, number % 100);
}

void Cusparse::set_matrix(const Csr& matrix) {
  State& s = *state_;
  s.reset_matrix();
  s.out = matrix.out;
  s.in = matrix.in;
  s.check(s.create_csr(&s.matrix, matrix.out, matrix.in, matrix.nonzeros, matrix.row_starts, matrix.columns,
                       matrix.values, CUSPARSE_INDEX_32I, CUSPARSE_INDEX_32I, CUSPARSE_INDEX_BASE_ZERO,
                       CUDA_R_16F),
          "cusparseCreateConstCsr");
}

std::int64_t Cusparse::prepare(const void* x, void* y, std::int64_t rows) {
  State& s = *state_;
  s.reset_dense();
  s.check(s.create_dense(&s.x, s.in, rows, rows, const_cast<void*>(x), CUDA_R_16F, CUSPARSE_ORDER_ROW),
          "cusparseCreateDnMat");
  s.check(s.create_dense(&s.y, s.out, rows, rows, y, CUDA_R_16F, CUSPARSE_ORDER_ROW), "cusparseCreateDnMat");
  std::size_t bytes = 0;
  s.check(s.buffer_size(s.handle, CUSPARSE_OPERATION_NON_TRANSPOSE, CUSPARSE_OPERATION_NON_TRANSPOSE, &kAlpha,
                        s.matrix, s.x, &kBeta, s.y, CUDA_R_32F, kAlgorithm, &bytes),
          "cusparseSpMM_bufferSize");
  return static_cast<std::int64_t>(bytes);
}

void Cusparse::run(std::span<std::byte> scratch) {
  State& s = *state_;
  s.check(s.multiply(s.handle, CUSPARSE_OPERATION_NON_TRANSPOSE, CUSPARSE_OPERATION_NON_TRANSPOSE, &kAlpha,
                     s.matrix, s.x, &kBeta, s.y, CUDA_R_32F, kAlgorithm, scratch.data()),
          "cusparseSpMM");
}

}  // namespace sluice::kernels
