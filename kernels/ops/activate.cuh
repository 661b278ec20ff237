// The activations of linear layers, in fp32. For *.cu files only.
#pragma once

#include "kernels/ops/linear.h"

namespace sluice::kernels {

__device__ inline float activate(Epilogue epilogue, float x) {
  switch (epilogue) {
    case Epilogue::kNone:
      return x;
    case Epilogue::kRelu:
      return x < 0 ? 0 : x;  // NaN stays
    case Epilogue::kGelu:
      return 0.5F * x * erfcf(-0.70710678118654752F * x);  // no cancellation in the tail
    case Epilogue::kGeluTanh:
      return 0.5F * x * (1.0F + tanhf(0.79788456080286536F * (x + 0.044715F * x * x * x)));
  }
  return x;
}

static __device__ __noinline__ float activate_out_of_line(Epilogue epilogue, float x) {
  return activate(epilogue, x);
}
/// The same with calls for what is long, for code that is unrolled.
__device__ __forceinline__ float activate_sum(Epilogue epilogue, float x) {
  if (epilogue == Epilogue::kNone) return x;
  if (epilogue == Epilogue::kRelu) return activate(Epilogue::kRelu, x);
  return activate_out_of_line(epilogue, x);
}

}  // namespace sluice::kernels
