// When a fused product may store two features of a token at once. Host only.
#pragma once

#include "kernels/ops/linear.h"

namespace sluice::kernels {

/// Whether features 2 i and 2 i + 1 of each row of y, and of the residual, are one aligned word, and no
/// feature is left over. The stride of a single row means nothing.
inline bool has_result_pairs(const LinearArgs& args) {
  const auto pair_bytes = static_cast<std::uintptr_t>(2 * dtype_bytes(args.y.dtype));
  const auto in_pairs = [&](const std::byte* data, std::int64_t stride) {
    return reinterpret_cast<std::uintptr_t>(data) % pair_bytes == 0 && (stride % 2 == 0 || args.x.rows == 1);
  };
  return args.weight.rows % 2 == 0 && in_pairs(args.y.data, args.y.stride) &&
         (args.residual.data == nullptr || in_pairs(args.residual.data, args.residual.stride));
}

}  // namespace sluice::kernels
