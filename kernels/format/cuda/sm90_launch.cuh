// The fused product of a format on sm_90a: its launches, and its row in the table of kernels. For *.cu files
// only. Thread-safe.
#pragma once

#include "kernels/device/cuda/launch_kernel.cuh"
#include "kernels/format/cuda/sm90_host.h"
#include "kernels/format/cuda/sm90_pipeline.cuh"

namespace sluice::kernels::sm90 {

/// Calls `body` with the shape of a launch for so many rows of x.
template <class Body>
void with_shape(std::int64_t tokens, Body body) {
  switch (rows_of_launch(tokens)) {
    case 8:
      return body(Shape<8>{});
    case 16:
      return body(Shape<16>{});
    case 32:
      return body(Shape<32>{});
    case 64:
      return body(Shape<64>{});
    default:
      return body(Shape<kMaxTokens>{});
  }
}

/// FusedKernel::run of a format.
template <class Format>
void run(const LinearArgs& args, const FusedMemory& memory, cudaStream_t stream) {
  const ProductParams params = lower(args, memory);
  with_shape(args.x.rows, [&]<int kTokens>(Shape<kTokens>) {
    using S = Shape<kTokens>;
    const CUtensorMap x = map_activations(args.x, kTokens);
    const auto launch = [&](void (*kernel)(ProductParams, CUtensorMap)) {
      launch_kernel(stream, Overlap::kAllowed, kernel, dim3(static_cast<unsigned>(num_multiprocessors())),
                    S::kThreads, S::kSharedBytes, params, x);
    };
    if (args.weight.format.dtype == DType::kBF16) {
      launch(product_kernel<Format, S, true>);
    } else {
      launch(product_kernel<Format, S, false>);
    }
  });
}

template <class Format>
constexpr FusedKernel fused_kernel(std::string_view name) {
  return {.name = name,
          .encoding = Format::kEncoding,
          .min_compute_capability = 90,
          .max_compute_capability = 90,
          .max_rows = kMaxTokens,
          .can_run =
              [](const LinearArgs& args) {
                return args.weight.format.encoding == Format::kEncoding && can_run(args);
              },
          .memory_bytes = memory_bytes,
          .run = run<Format>};
}

}  // namespace sluice::kernels::sm90
