// The elementwise end of a linear layer, once per SIMD target. For *_cpu.cc files only (see simd_inl.h). One
// element does not see its neighbours, so partial vectors give the same bits as full ones.
// clang-format off
#include "kernels/device/cpu/simd_inl.h"
#include "hwy/contrib/math/math-inl.h"
// clang-format on
#include "kernels/ops/linear.h"

#if defined(SLUICE_KERNELS_OPS_EPILOGUE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SLUICE_KERNELS_OPS_EPILOGUE_INL_H_
#undef SLUICE_KERNELS_OPS_EPILOGUE_INL_H_
#else
#define SLUICE_KERNELS_OPS_EPILOGUE_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace sluice::kernels::HWY_NAMESPACE {

/// 0.5 x (1 + erf(x / sqrt 2)). The complement erfc(|z|) = p(t) exp(-z^2), t = 1 / (1 + 0.3275911 |z|), is
/// formula 7.1.26 of Abramowitz and Stegun, |error| <= 1.5e-7; using it on both sides avoids the cancellation
/// in 1 + erf.
HWY_INLINE V32 gelu(V32 x) {
  const F32 d;
  const V32 half = hn::Set(d, 0.5F);
  const V32 z = hn::Mul(hn::Abs(x), hn::Set(d, 0.70710678118654752F));
  const V32 t = hn::Div(hn::Set(d, 1.0F), hn::MulAdd(z, hn::Set(d, 0.3275911F), hn::Set(d, 1.0F)));
  V32 p = hn::Set(d, 1.061405429F);
  p = hn::MulAdd(p, t, hn::Set(d, -1.453152027F));
  p = hn::MulAdd(p, t, hn::Set(d, 1.421413741F));
  p = hn::MulAdd(p, t, hn::Set(d, -0.284496736F));
  p = hn::MulAdd(p, t, hn::Set(d, 0.254829592F));
  const V32 erfc = hn::Mul(hn::Mul(p, t), hn::Exp(d, hn::Neg(hn::Mul(z, z))));
  const V32 tail = hn::Mul(hn::Mul(half, x), erfc);
  return hn::IfThenElse(hn::Lt(x, hn::Zero(d)), tail, hn::Sub(x, tail));
}

/// 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
HWY_INLINE V32 gelu_tanh(V32 x) {
  const F32 d;
  const V32 cube = hn::Mul(hn::Mul(x, x), x);
  const V32 inner = hn::Mul(hn::MulAdd(cube, hn::Set(d, 0.044715F), x), hn::Set(d, 0.79788456080286536F));
  return hn::Mul(hn::Mul(hn::Set(d, 0.5F), x), hn::Add(hn::Set(d, 1.0F), hn::Tanh(d, inner)));
}

HWY_INLINE V32 apply_epilogue(Epilogue epilogue, V32 x) {
  switch (epilogue) {
    case Epilogue::kNone:
      return x;
    case Epilogue::kRelu:
      return hn::Max(hn::Zero(F32{}), x);  // a NaN in x stays: the second operand wins on x86
    case Epilogue::kGelu:
      return gelu(x);
    case Epilogue::kGeluTanh:
      return gelu_tanh(x);
  }
  return x;
}

}  // namespace sluice::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
