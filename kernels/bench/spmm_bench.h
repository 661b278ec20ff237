// What `sluice bench spmm` measures: products y = x W^T of few rows of x over one weight matrix in each of
// its forms, by every kernel there is, and the peers' libraries; each is checked against an fp32 product. The
// command line chooses what to measure; this does it. Used by one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/format.h"
#include "kernels/device/device.h"

namespace sluice::kernels {

class ThreadPool;

struct SpmmShape {
  std::int64_t rows = 0;  ///< M, output features
  std::int64_t cols = 0;  ///< K, input features
  friend bool operator==(const SpmmShape&, const SpmmShape&) = default;
};

/// What the shares of the roofline refer to.
struct SpmmDeviceRates {
  double copy_bytes_per_sec = 0;     ///< of a copy inside device memory, read plus written
  double product_flops_per_sec = 0;  ///< of an fp16 product of 8192 cubed, random data
};

struct SpmmTiming {
  double sec = 0, low_sec = 0, high_sec = 0;  ///< of one call, from a cold L2: median, fastest, slowest
  /// Largest |y - reference| over its tolerance; infinity for an element that is not finite or was not
  /// written, or if anything was written outside y. Above 1 the result is wrong.
  double worst_error = 0;
  std::string why_not;  ///< empty, or why this was not measured
};

class SpmmBench {
 public:
  struct Options {
    std::int64_t max_rows = 0;  ///< N, most rows of x of a product
    int samples = 11;           ///< of which the median counts
  };
  virtual ~SpmmBench() = default;

  virtual SpmmDeviceRates measure_rates() = 0;
  /// "cuBLAS 13.1, cuSPARSE 12.6": the libraries found, and what is missing.
  virtual std::string libraries() const = 0;

  /// From here on the matrix has this shape and this share of zeros. Its dense form is set.
  virtual void set_matrix(SpmmShape shape, double sparsity) = 0;
  /// Its form from here on. A lossy form's products are judged by what it decodes to.
  virtual void set_encoding(Encoding encoding) = 0;
  virtual void set_csr() = 0;
  /// Stored bytes of the form.
  virtual std::int64_t stored_bytes() const = 0;

  /// Names of the products that this device has for the form: "cublas" and "cublaslt" for the dense one,
  /// "cusparse" for CSR, else the fused kernels, "expand+cublaslt", and "linear", which chooses among them.
  virtual std::vector<std::string> products() const = 0;
  virtual SpmmTiming time_product(const std::string& name, std::int64_t rows) = 0;
  /// Expansion of the form to dense: the whole matrix into device memory, or slice after slice into one
  /// buffer as ahead of products. worst_error is 0, or infinity if a value differs from the codec's.
  enum class Expansion : std::uint8_t { kWhole, kSliced };
  virtual SpmmTiming time_expansion(Expansion expansion) = 0;
};

/// Throws Error{kUnsupported} for a device that is not CUDA. Both outlive the bench.
std::unique_ptr<SpmmBench> make_spmm_bench(Device& device, ThreadPool& pool,
                                           const SpmmBench::Options& options);

namespace detail {  // kernels/bench/cuda; CUDA builds only
std::unique_ptr<SpmmBench> make_spmm_bench_cuda(Device& device, ThreadPool& pool,
                                                const SpmmBench::Options& options);
}  // namespace detail

}  // namespace sluice::kernels
