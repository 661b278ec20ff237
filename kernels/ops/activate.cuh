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

}  // namespace sluice::kernels
