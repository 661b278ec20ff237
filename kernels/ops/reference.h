// The oracle of the operator tests: plain loops in double, on the same arguments as the operators. Linked
// only into tests. An operator of any device must come within `tolerance` of `value`.
//
// Tolerances are first-order rounding bounds of an fp32 computation (u = 2^-24): a sum of n products differs
// from the exact one by at most n u sum |a b|, whatever its order (Higham 2002, section 3.1), and each later
// operation adds its own u. They hold on every SIMD target, the scalar one included.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/ops/attention.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/layer_norm.h"
#include "kernels/ops/linear.h"

namespace sluice::kernels {

inline constexpr double kFp32Rounding = 0x1p-24;

struct Expected {
  double value = 0;
  double tolerance = 0;
};

/// Row-major, dense, the shape of the operator's output. Outputs of the arguments are read only where the
/// operator reads them.
std::vector<Expected> embedding_ref(const EmbeddingArgs& args);
std::vector<Expected> layer_norm_ref(const LayerNormArgs& args);
std::vector<Expected> linear_ref(const LinearArgs& args);
/// Rows of no segment are {0, 0} and mean nothing.
std::vector<Expected> attention_ref(const AttentionArgs& args);

/// Element `i` of a row of stored or computed values.
double element(const std::byte* data, DType dtype, std::int64_t i);

}  // namespace sluice::kernels
