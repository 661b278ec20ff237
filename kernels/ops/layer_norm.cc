#include "kernels/ops/layer_norm.h"

#include "core/build_config.h"
#include "core/error.h"
#include "kernels/ops/cpu_kernels.h"
#include "kernels/ops/cuda_kernels.h"
#include "kernels/ops/operands.h"

namespace sluice::kernels {

std::string why_unsupported(const LayerNormArgs& args, DeviceKind kind) {
  return first_reason(why_not_activation("x", args.x.dtype, kind),
                      why_not_activation("y", args.y.dtype, kind), why_not_vector("gamma", args.gamma),
                      why_not_vector("beta", args.beta),
                      args.x.dtype != args.y.dtype ? std::string("x and y differ in type") : std::string(),
                      args.gamma && args.beta && args.gamma.dtype != args.beta.dtype
                          ? std::string("gamma and beta differ in type")
                          : std::string());
}

void layer_norm(const LayerNormArgs& args, Stream& stream) {
  refuse_unless_empty("layer_norm", why_unsupported(args, stream.kind()));
  SLUICE_ASSERT(args.x.rows == args.y.rows && args.x.cols == args.y.cols);
  SLUICE_ASSERT(!args.gamma || args.gamma.size == args.x.cols);
  SLUICE_ASSERT(!args.beta || args.beta.size == args.x.cols);
  check_operand(stream, args.x);
  check_operand(stream, args.y);
  check_operand(stream, args.gamma);
  check_operand(stream, args.beta);
  if constexpr (kWithCuda) {
    if (stream.kind() == DeviceKind::kCuda) return detail::layer_norm_cuda(args, stream);
  }
  detail::layer_norm_cpu(args, stream.pool());
}

}  // namespace sluice::kernels
