// Plans of matrix products: cuBLASLt descriptors with a chosen algorithm, kept per shape, because choosing
// takes longer than many products of decode. Used by the one thread that enqueues on the stream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>

#include <cublasLt.h>

#include "core/dtype.h"
#include "kernels/device/cuda/handle.h"
#include "kernels/device/stream.h"

namespace sluice::kernels {

/// What cuBLASLt adds to the product before it rounds.
enum class FusedEpilogue : std::uint8_t { kNone, kBias, kRelu, kReluBias };

/// y = epilogue(x W^T + bias) + residual, all row-major: what a plan depends on. Strides in elements;
/// alignments are powers of two, in bytes, that every row of the operand starts at a multiple of, at most 16.
struct LinearShape {
  std::int64_t rows = 0, out = 0, in = 0;
  std::int64_t x_stride = 0, y_stride = 0, residual_stride = 0;
  DType x = DType::kF16;                          ///< of weight and x
  DType y = DType::kF16;                          ///< of residual and y
  FusedEpilogue epilogue = FusedEpilogue::kNone;  ///< the bias is of y's type
  bool has_residual = false;
  // Several layers over one x, without residual: how many, and the distances between their operands, in
  // elements.
  std::int64_t layers = 1, weight_distance = 0, y_distance = 0, bias_distance = 0;
  std::uint8_t x_alignment = 2, weight_alignment = 2, residual_alignment = 2, y_alignment = 2;
  BatchInvariance invariance = BatchInvariance::kOff;

  friend bool operator==(const LinearShape&, const LinearShape&) = default;
};

struct LinearOperands {
  const void *x = nullptr, *weight = nullptr, *residual = nullptr;
  const void* bias = nullptr;  ///< aligned to 16
  void* y = nullptr;
};

/// Meeting a shape for the first time allocates its plan and lets cuBLASLt choose an algorithm, which takes
/// about a millisecond; shapes whose row counts are planned alike (kernels/device/planned_rows.h) share the
/// choice, so a warm-up over these counts spares a run all of it but the small allocation. The workspace has
/// the same size in all calls.
class LinearPlans {
 public:
  explicit LinearPlans(cublasLtHandle_t blas);

  /// Whether cuBLASLt has an algorithm for the shape; makes the plan, and throws, as `run` would. `bias`: any
  /// that the shape's calls may have.
  bool can_run(const LinearShape& shape, const void* bias, std::span<std::byte> workspace);
  /// Enqueues the product. False, and nothing is done, if cuBLASLt has no algorithm for the shape.
  /// With BatchInvariance::kOn the algorithm depends on everything in `shape` but `rows`, and does not split
  /// sums over blocks; throws Error{kUnsupported} if it cannot take this many rows.
  bool run(const LinearShape& shape, const LinearOperands& operands, std::span<std::byte> workspace,
           cudaStream_t stream);

 private:
  struct Hash {
    std::size_t operator()(const LinearShape& shape) const;
  };
  struct Plan {
    cublasLtMatmulDescOpaque_t product{};
    cublasLtMatrixLayoutOpaque_t weight{}, x{}, residual{}, y{};
    cublasLtMatmulAlgo_t algorithm{};
    bool exists = false;  // else cuBLASLt has none
  };

  // `bias`: of the call for which the plan is made; cuBLASLt wants one when it chooses.
  Plan& plan_of(const LinearShape& shape, const void* bias, std::int64_t workspace_bytes);
  Plan make_plan(const LinearShape& shape, const void* bias, std::int64_t workspace_bytes);
  /// The plan of `reference` with the algorithm that cuBLASLt thinks best, made once.
  const Plan& chosen_at(const LinearShape& reference, const void* bias, std::int64_t workspace_bytes);
  bool adopt(const Plan& chosen, std::int64_t workspace_bytes, Plan& plan) const;
  static Plan describe(const LinearShape& shape, const void* bias);

  // Bounds the memory of a server that meets ever new shapes: a run has some plans for each row count, and a
  // few dozen choices. Each map is emptied when it is full itself, so new row counts never cost the choices.
  static constexpr std::size_t kMaxPlans = 4096;

  const cublasLtHandle_t blas_;
  std::unordered_map<LinearShape, Plan, Hash> plans_;
  std::unordered_map<LinearShape, Plan, Hash> chosen_;  // by shape at the row count for which it was chosen
};

}  // namespace sluice::kernels
