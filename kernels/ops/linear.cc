#include "kernels/ops/linear.h"

#include "core/error.h"
#include "kernels/ops/cpu_kernels.h"
#include "kernels/ops/operands.h"

namespace sluice::kernels {

Epilogue to_epilogue(Activation activation) {
  switch (activation) {
    case Activation::kRelu:
      return Epilogue::kRelu;
    case Activation::kGelu:
      return Epilogue::kGelu;
    case Activation::kGeluTanh:
      return Epilogue::kGeluTanh;
  }
  return Epilogue::kNone;
}

std::string why_unsupported(const LinearArgs& args, DeviceKind kind) {
  return first_reason(
      why_not_activation("x", args.x.dtype, kind), why_not_activation("y", args.y.dtype, kind),
      args.residual.data != nullptr ? why_not_activation("residual", args.residual.dtype, kind)
                                    : std::string(),
      why_not_weight("weight", args.weight), why_not_vector("bias", args.bias));
}

void linear(const LinearArgs& args, Stream& stream) {
  refuse_unless_empty("linear", why_unsupported(args, stream.kind()));
  SLUICE_ASSERT(args.x.cols == args.weight.cols && args.y.cols == args.weight.rows);
  SLUICE_ASSERT(args.x.rows == args.y.rows && args.x.cols > 0);
  SLUICE_ASSERT(!args.bias || args.bias.size == args.weight.rows);
  SLUICE_ASSERT(args.residual.data == nullptr ||
                (args.residual.rows == args.y.rows && args.residual.cols == args.y.cols));
  check_operand(stream, args.x);
  check_operand(stream, args.weight);
  check_operand(stream, args.bias);
  check_operand(stream, args.residual);
  check_operand(stream, args.y);
  if (args.y.rows == 0 || args.y.cols == 0) return;
  detail::linear_cpu(args, stream.pool());
}

}  // namespace sluice::kernels
