#include "kernels/device/cuda/linear_plans.h"

#include <algorithm>
#include <array>

#include "core/error.h"
#include "kernels/device/planned_rows.h"

namespace sluice::kernels {
namespace {

/// The row count for which an invariant algorithm is chosen: between decode and prefill.
constexpr std::int64_t kReferenceRows = 128;

cudaDataType_t cuda_type(DType dtype) {
  switch (dtype) {
    case DType::kF16:
      return CUDA_R_16F;
    case DType::kBF16:
      return CUDA_R_16BF;
    default:
      return CUDA_R_32F;
  }
}

cublasLtEpilogue_t lt_epilogue(FusedEpilogue epilogue) {
  switch (epilogue) {
    case FusedEpilogue::kNone:
      return CUBLASLT_EPILOGUE_DEFAULT;
    case FusedEpilogue::kBias:
      return CUBLASLT_EPILOGUE_BIAS;
    case FusedEpilogue::kRelu:
      return CUBLASLT_EPILOGUE_RELU;
    case FusedEpilogue::kReluBias:
      return CUBLASLT_EPILOGUE_RELU_BIAS;
  }
  return CUBLASLT_EPILOGUE_DEFAULT;
}

template <class T>
void set(cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t attribute, T value) {
  CUBLAS_CHECK(cublasLtMatmulDescSetAttribute(product, attribute, &value, sizeof(value)));
}
template <class T>
void set(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute, T value) {
  CUBLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value)));
}

void set_group(cublasLtMatrixLayoutOpaque_t& layout, std::int64_t count, std::int64_t distance) {
  const auto layers = static_cast<std::int32_t>(count);
  CUBLAS_CHECK(
      cublasLtMatrixLayoutSetAttribute(&layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &layers, sizeof(layers)));
  CUBLAS_CHECK(cublasLtMatrixLayoutSetAttribute(&layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                                &distance, sizeof(distance)));
}

template <class T>
T configured(const cublasLtMatmulAlgo_t& algorithm, cublasLtMatmulAlgoConfigAttributes_t attribute) {
  T value{};
  std::size_t written = 0;
  CUBLAS_CHECK(cublasLtMatmulAlgoConfigGetAttribute(&algorithm, attribute, &value, sizeof(value), &written));
  return value;
}

/// Whether the algorithm adds up each sum in one block.
bool sums_in_one_block(const cublasLtMatmulAlgo_t& algorithm) {
  return configured<std::int32_t>(algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM) <= 1 &&
         configured<std::uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME) ==
             CUBLASLT_REDUCTION_SCHEME_NONE;
}

cublasLtMatmulPreferenceOpaque_t preference_for(const LinearShape& shape, std::int64_t workspace_bytes) {
  cublasLtMatmulPreferenceOpaque_t preference{};
  CUBLAS_CHECK(cublasLtMatmulPreferenceInit(&preference));
  set(&preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<std::uint64_t>(workspace_bytes));
  set(&preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, std::uint32_t{shape.weight_alignment});
  set(&preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, std::uint32_t{shape.x_alignment});
  set(&preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
      std::uint32_t{shape.has_residual ? shape.residual_alignment : shape.y_alignment});
  set(&preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, std::uint32_t{shape.y_alignment});
  return preference;
}

/// `shape` with what may differ between calls of the same layer made the same: the row count, and strides, of
/// which only the alignment stays.
LinearShape reference_of(LinearShape shape) {
  const auto padded = [](std::int64_t cols, std::int64_t alignment, DType dtype) {
    const std::int64_t step = std::max<std::int64_t>(1, alignment / dtype_bytes(dtype));
    return (cols + step - 1) / step * step;
  };
  shape.rows = kReferenceRows;
  shape.x_stride = padded(shape.in, shape.x_alignment, shape.x);
  shape.y_stride = padded(shape.out, shape.y_alignment, shape.y);
  shape.residual_stride = shape.has_residual ? padded(shape.out, shape.residual_alignment, shape.y) : 0;
  return shape;
}

}  // namespace

LinearPlans::LinearPlans(cublasLtHandle_t blas) : blas_(blas) {
  plans_.reserve(kMaxPlans);  // no rehash in the middle of a run
  chosen_.reserve(kMaxPlans);
}

std::size_t LinearPlans::Hash::operator()(const LinearShape& shape) const {
  std::uint64_t hash = 0;
  const auto mix = [&](std::uint64_t value) {
    hash = (hash ^ value) * 0x9E3779B97F4A7C15U;
    hash ^= hash >> 29;
  };
  for (const std::int64_t value :
       {shape.rows, shape.out, shape.in, shape.x_stride, shape.y_stride, shape.residual_stride, shape.layers,
        shape.weight_distance, shape.y_distance, shape.bias_distance})
    mix(static_cast<std::uint64_t>(value));
  std::uint64_t packed = 0;
  for (const auto value : {static_cast<std::uint64_t>(shape.x), static_cast<std::uint64_t>(shape.y),
                           static_cast<std::uint64_t>(shape.epilogue), std::uint64_t{shape.has_residual},
                           std::uint64_t{shape.x_alignment}, std::uint64_t{shape.weight_alignment},
                           std::uint64_t{shape.residual_alignment}, std::uint64_t{shape.y_alignment},
                           static_cast<std::uint64_t>(shape.invariance)})
    packed = packed * 31 + value;
  mix(packed);
  return hash;
}

// cuBLASLt's matrices are column-major, so a row-major matrix is its transpose there: y^T = W x^T, with W
// stored as a column-major [in, out] that is to be transposed.
LinearPlans::Plan LinearPlans::describe(const LinearShape& shape, const void* bias) {
  Plan plan;
  const auto rows = static_cast<std::uint64_t>(shape.rows);
  const auto out = static_cast<std::uint64_t>(shape.out);
  const auto in = static_cast<std::uint64_t>(shape.in);
  CUBLAS_CHECK(cublasLtMatmulDescInit(&plan.product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  set(&plan.product, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
  set(&plan.product, CUBLASLT_MATMUL_DESC_TRANSB, CUBLAS_OP_N);
  set(&plan.product, CUBLASLT_MATMUL_DESC_EPILOGUE, lt_epilogue(shape.epilogue));
  if (bias != nullptr) {
    set(&plan.product, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, cuda_type(shape.y));
    set(&plan.product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
  }
  const cudaDataType_t x = cuda_type(shape.x);
  const cudaDataType_t y = cuda_type(shape.y);
  CUBLAS_CHECK(cublasLtMatrixLayoutInit(&plan.weight, x, in, out, shape.in));
  CUBLAS_CHECK(cublasLtMatrixLayoutInit(&plan.x, x, in, rows, shape.x_stride));
  CUBLAS_CHECK(cublasLtMatrixLayoutInit(&plan.y, y, out, rows, shape.y_stride));
  CUBLAS_CHECK(cublasLtMatrixLayoutInit(&plan.residual, y, out, rows,
                                        shape.has_residual ? shape.residual_stride : shape.y_stride));
  if (shape.layers > 1) {
    set_group(plan.weight, shape.layers, shape.weight_distance);
    set_group(plan.x, shape.layers, 0);
    set_group(plan.y, shape.layers, shape.y_distance);
    set_group(plan.residual, shape.layers, shape.y_distance);
    if (bias != nullptr) set(&plan.product, CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE, shape.bias_distance);
  }
  return plan;
}

const LinearPlans::Plan& LinearPlans::chosen_at(const LinearShape& reference, const void* bias,
                                                std::int64_t workspace_bytes) {
  if (chosen_.size() >= kMaxPlans && !chosen_.contains(reference)) chosen_.clear();
  const auto [entry, is_new] = chosen_.try_emplace(reference);
  Plan& chosen = entry->second;
  if (!is_new) return chosen;
  chosen = describe(reference, bias);
  const bool invariant = reference.invariance == BatchInvariance::kOn;
  // Partial sums are combined as fp32: in y's type, each is rounded. Without workspace and reduction schemes
  // nothing is left to combine them with.
  cublasLtMatmulPreferenceOpaque_t preference = preference_for(reference, invariant ? 0 : workspace_bytes);
  set(&preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      static_cast<std::uint32_t>(invariant ? CUBLASLT_REDUCTION_SCHEME_NONE
                                           : CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  std::array<cublasLtMatmulHeuristicResult_t, 16> candidates{};
  int found = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      blas_, &chosen.product, &chosen.weight, &chosen.x, &chosen.residual, &chosen.y, &preference,
      invariant ? static_cast<int>(candidates.size()) : 1, candidates.data(), &found);
  if (status != CUBLAS_STATUS_NOT_SUPPORTED) CUBLAS_CHECK(status);
  for (int i = 0; i < found && !chosen.exists; ++i) {
    const auto& candidate = candidates[static_cast<std::size_t>(i)];
    if (candidate.state != CUBLAS_STATUS_SUCCESS || (invariant && !sums_in_one_block(candidate.algo)))
      continue;
    chosen.algorithm = candidate.algo;
    chosen.exists = true;
  }
  return chosen;
}

/// Gives `plan` the algorithm of `chosen`, if it can take the plan's row count with this workspace.
bool LinearPlans::adopt(const Plan& chosen, std::int64_t workspace_bytes, Plan& plan) const {
  cublasLtMatmulHeuristicResult_t checked{};
  plan.algorithm = chosen.algorithm;
  plan.exists = chosen.exists &&
                cublasLtMatmulAlgoCheck(blas_, &plan.product, &plan.weight, &plan.x, &plan.residual, &plan.y,
                                        &plan.algorithm, &checked) == CUBLAS_STATUS_SUCCESS &&
                checked.workspaceSize <= static_cast<std::size_t>(workspace_bytes);
  return plan.exists;
}

LinearPlans::Plan LinearPlans::make_plan(const LinearShape& shape, const void* bias,
                                         std::int64_t workspace_bytes) {
  Plan plan = describe(shape, bias);
  if (shape.invariance == BatchInvariance::kOn) {
    const Plan& chosen = chosen_at(reference_of(shape), bias, workspace_bytes);
    const bool adopted = adopt(chosen, workspace_bytes, plan);
    SLUICE_CHECK(adopted || !chosen.exists, Code::kUnsupported,
                 fmt::format("cuBLASLt's algorithm for {} x {} weights refuses {} rows", shape.out, shape.in,
                             shape.rows),
                 "run without batch invariance, or with another --gpu-batch-size");
    return plan;
  }
  // Choosing takes a millisecond, and ragged batches bring ever new row counts: near ones share the choice.
  LinearShape rounded = shape;
  rounded.rows = planned_rows(shape.rows);
  if (!adopt(chosen_at(rounded, bias, workspace_bytes), workspace_bytes, plan) && rounded.rows != shape.rows)
    adopt(chosen_at(shape, bias, workspace_bytes), workspace_bytes, plan);
  return plan;
}

LinearPlans::Plan& LinearPlans::plan_of(const LinearShape& shape, const void* bias,
                                        std::int64_t workspace_bytes) {
  const auto found = plans_.find(shape);
  if (found != plans_.end()) return found->second;
  if (plans_.size() >= kMaxPlans) plans_.clear();
  return plans_.emplace(shape, make_plan(shape, bias, workspace_bytes)).first->second;
}

bool LinearPlans::can_run(const LinearShape& shape, const void* bias, std::span<std::byte> workspace) {
  return plan_of(shape, bias, static_cast<std::int64_t>(workspace.size())).exists;
}

bool LinearPlans::run(const LinearShape& shape, const LinearOperands& operands,
                      std::span<std::byte> workspace, cudaStream_t stream) {
  Plan& plan = plan_of(shape, operands.bias, static_cast<std::int64_t>(workspace.size()));
  if (!plan.exists) return false;
  if (operands.bias != nullptr) set(&plan.product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, operands.bias);
  const float alpha = 1;
  const float beta = shape.has_residual ? 1.0F : 0.0F;
  const void* residual = shape.has_residual ? operands.residual : operands.y;
  CUBLAS_CHECK(cublasLtMatmul(blas_, &plan.product, &alpha, operands.weight, &plan.weight, operands.x,
                              &plan.x, &beta, residual, &plan.residual, operands.y, &plan.y, &plan.algorithm,
                              workspace.data(), workspace.size(), stream));
  return true;
}

}  // namespace sluice::kernels
