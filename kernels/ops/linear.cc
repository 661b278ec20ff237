#include "kernels/ops/linear.h"

#include <algorithm>

#include "core/build_config.h"
#include "core/error.h"
#include "kernels/ops/cpu_kernels.h"
#include "kernels/ops/cuda_kernels.h"
#include "kernels/ops/expand.h"
#include "kernels/ops/linear_slices.h"
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

namespace {

/// The tensor cores multiply equal types; logits leave in fp32.
std::string why_not_cuda(const LinearArgs& args) {
  const DType weight = args.weight.format.dtype;
  if (args.x.dtype != weight) {
    return fmt::format("x is {} and weight {}, must be one type", dtype_name(args.x.dtype),
                       weight_format_name(args.weight.format));
  }
  if (args.y.dtype == DType::kF32) {
    return args.residual.data == nullptr ? std::string() : "y is f32, which takes no residual";
  }
  if (args.y.dtype != args.x.dtype) {
    return fmt::format("y is {}, must be {} or f32", dtype_name(args.y.dtype), dtype_name(args.x.dtype));
  }
  if (args.residual.data != nullptr && args.residual.dtype != args.y.dtype) {
    return fmt::format("residual is {}, must be {}", dtype_name(args.residual.dtype),
                       dtype_name(args.y.dtype));
  }
  return {};
}

}  // namespace

std::string why_unsupported(const LinearArgs& args, DeviceKind kind) {
  if (kind == DeviceKind::kCuda) {
    return first_reason(why_not_activation("x", args.x.dtype, kind),
                        why_not_encoded_weight("weight", args.weight, kind),
                        why_not_vector("bias", args.bias), why_not_cuda(args));
  }
  return first_reason(
      why_not_activation("x", args.x.dtype, kind), why_not_activation("y", args.y.dtype, kind),
      args.residual.data != nullptr ? why_not_activation("residual", args.residual.dtype, kind)
                                    : std::string(),
      why_not_encoded_weight("weight", args.weight, kind), why_not_vector("bias", args.bias));
}

namespace {

bool is_aligned(const std::byte* data) { return reinterpret_cast<std::uintptr_t>(data) % 16 == 0; }

/// What expansion needs: that a slice fits the scratch, on CUDA each half of it, and alignment there.
void check_encoded(const LinearArgs& args, DeviceKind kind) {
  const std::int64_t slice = detail::slice_rows(args, kind) * args.weight.cols * 2;
  if (kind == DeviceKind::kCpu) {
    SLUICE_ASSERT(std::ssize(args.scratch) >= slice);
    return;
  }
  SLUICE_ASSERT(std::ssize(args.scratch) >= 2 * align_up(slice, 256));
  SLUICE_ASSERT(is_aligned(args.weight.data.data()) && is_aligned(args.scratch.data()));
}

/// Throws unless the call can run; false if there is nothing to do.
bool check(const LinearArgs& args, const Stream& stream) {
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
  if (args.weight.format.encoding != Encoding::kDense) check_encoded(args, stream.kind());
  return args.y.rows > 0 && args.y.cols > 0;
}

}  // namespace

namespace {

/// Slice by slice of output features: expansion, then the dense product.
void linear_expanded(const LinearArgs& args, Stream& stream) {
  detail::for_each_slice(args, stream.kind(), [&](std::int64_t first, std::int64_t rows) {
    const auto slice = args.scratch.first(static_cast<std::size_t>(rows * args.weight.cols * 2));
    expand({.weight = args.weight, .first_row = first, .num_rows = rows, .out = slice}, stream);
    linear(detail::slice_of(args, first, rows, slice), stream);
  });
}

}  // namespace

void linear(const LinearArgs& args, Stream& stream) {
  if (!check(args, stream)) return;
  const bool is_encoded = args.weight.format.encoding != Encoding::kDense;
  if constexpr (kWithCuda) {
    if (stream.kind() == DeviceKind::kCuda) {
      return is_encoded ? detail::linear_encoded_cuda(args, stream) : detail::linear_cuda(args, stream);
    }
  }
  if (is_encoded) return linear_expanded(args, stream);
  detail::linear_cpu(args, stream.pool());
}

void linear_group(std::span<const LinearArgs> layers, Stream& stream) {
  bool any = false;
  for (const LinearArgs& layer : layers) {
    const ConstMatrixView& x = layers[0].x;
    SLUICE_ASSERT(layer.x.data == x.data && layer.x.dtype == x.dtype && layer.x.stride == x.stride);
    SLUICE_ASSERT(layer.x.rows == x.rows && layer.x.cols == x.cols && layer.y.rows == layers[0].y.rows);
    SLUICE_ASSERT(layer.epilogue == Epilogue::kNone && layer.residual.data == nullptr);
    any = check(layer, stream) || any;
  }
  const bool all_dense = std::ranges::all_of(
      layers, [](const LinearArgs& layer) { return layer.weight.format.encoding == Encoding::kDense; });
  if constexpr (kWithCuda) {
    if (any && all_dense && stream.kind() == DeviceKind::kCuda && detail::linear_group_cuda(layers, stream))
      return;
  }
  for (const LinearArgs& layer : layers) linear(layer, stream);
}

}  // namespace sluice::kernels
