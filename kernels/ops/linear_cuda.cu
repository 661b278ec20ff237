// A linear layer is one cuBLASLt product wherever it can express the whole: bias of y's type, ReLU, or a
// residual. Otherwise the plain product is finished by an element-wise kernel; and what cuBLASLt has no
// algorithm for, by a kernel of our own, right and slow.
#include <algorithm>
#include <optional>

#include "kernels/device/cuda/cuda_stream.h"
#include "kernels/device/cuda/linear_plans.h"
#include "kernels/ops/activate.cuh"
#include "kernels/ops/cuda_kernels.h"
#include "kernels/ops/elements.cuh"

namespace sluice::kernels {
namespace {

constexpr int kThreads = 256;

/// y = epilogue(product + bias) + residual; `product` may be y, and so may `residual`.
template <class Y>
struct FinishParams {
  const Y *product, *residual;  // residual null: none
  const void* bias;             // null: none
  Y* y;
  std::int64_t product_stride, residual_stride, y_stride, cols;
  Epilogue epilogue;
  bool bf16_bias;
};

template <class Y, int kWidth>
__global__ void __launch_bounds__(kThreads) finish_kernel(const __grid_constant__ FinishParams<Y> p) {
  const std::int64_t row = blockIdx.x;
  const std::int64_t first = (std::int64_t{blockIdx.y} * kThreads + threadIdx.x) * kWidth;
  if (first >= p.cols) return;
  struct alignas(sizeof(Y) * kWidth < 16 ? sizeof(Y) * kWidth : 16) Lanes {
    Y lane[kWidth];
  };
  Lanes value = *reinterpret_cast<const Lanes*>(p.product + row * p.product_stride + first);
  Lanes residual{};
  if (p.residual != nullptr)
    residual = *reinterpret_cast<const Lanes*>(p.residual + row * p.residual_stride + first);
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    float x = widen(value.lane[j]);
    if (p.bias != nullptr) x += widen_element(p.bias, p.bf16_bias, first + j);
    x = activate(p.epilogue, x);
    if (p.residual != nullptr) x += widen(residual.lane[j]);
    value.lane[j] = narrow<Y>(x);
  }
  *reinterpret_cast<Lanes*>(p.y + row * p.y_stride + first) = value;
}

/// What cuBLASLt has no algorithm for: one warp per element of y.
template <class X, class Y>
struct PlainParams {
  const X *x, *weight;
  const void* bias;
  const Y* residual;
  Y* y;
  std::int64_t x_stride, residual_stride, y_stride, out, in;
  Epilogue epilogue;
  bool bf16_bias;
};

template <class X, class Y>
__global__ void __launch_bounds__(kThreads) plain_kernel(const __grid_constant__ PlainParams<X, Y> p) {
  const std::int64_t row = blockIdx.x;
  const std::int64_t feature = std::int64_t{blockIdx.y} * (kThreads / 32) + threadIdx.x / 32;
  if (feature >= p.out) return;
  float sum = 0;
  for (std::int64_t i = threadIdx.x % 32; i < p.in; i += 32)
    sum += widen(p.x[row * p.x_stride + i]) * widen(p.weight[feature * p.in + i]);
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xFFFFFFFFU, sum, distance);
  if (threadIdx.x % 32 != 0) return;
  if (p.bias != nullptr) sum += widen_element(p.bias, p.bf16_bias, feature);
  sum = activate(p.epilogue, sum);
  if (p.residual != nullptr) sum += widen(p.residual[row * p.residual_stride + feature]);
  p.y[row * p.y_stride + feature] = narrow<Y>(sum);
}

/// Calls `body` with a value of the type of y.
template <class Body>
void with_result_type(DType dtype, Body body) {
  if (dtype == DType::kF32) {
    body(float{});
  } else {
    with_element_type(dtype, body);
  }
}

/// y = epilogue(product + bias) + residual, with what is to be finished of `args`.
template <class Y>
void finish(const LinearArgs& args, const ConstMatrixView& product, CudaStream& stream) {
  const FinishParams<Y> p{.product = reinterpret_cast<const Y*>(product.data),
                          .residual = reinterpret_cast<const Y*>(args.residual.data),
                          .bias = args.bias.data,
                          .y = reinterpret_cast<Y*>(args.y.data),
                          .product_stride = product.stride,
                          .residual_stride = args.residual.stride,
                          .y_stride = args.y.stride,
                          .cols = args.y.cols,
                          .epilogue = args.epilogue,
                          .bf16_bias = args.bias.dtype == DType::kBF16};
  constexpr auto kBytes = static_cast<std::int64_t>(sizeof(Y));
  const bool wide = p.cols % kVector == 0 && is_vector_aligned(p.product, p.product_stride * kBytes) &&
                    is_vector_aligned(p.y, p.y_stride * kBytes) &&
                    is_vector_aligned(p.residual, p.residual_stride * kBytes);
  const std::int64_t per_block = kThreads * (wide ? kVector : 1);
  const dim3 blocks(static_cast<unsigned>(args.y.rows),
                    static_cast<unsigned>((p.cols + per_block - 1) / per_block));
  if (wide) {
    finish_kernel<Y, kVector><<<blocks, kThreads, 0, stream.raw()>>>(p);
  } else {
    finish_kernel<Y, 1><<<blocks, kThreads, 0, stream.raw()>>>(p);
  }
  CUDA_CHECK(cudaGetLastError());
}

template <class X, class Y>
void plain(const LinearArgs& args, CudaStream& stream) {
  const PlainParams<X, Y> p{.x = reinterpret_cast<const X*>(args.x.data),
                            .weight = reinterpret_cast<const X*>(args.weight.data.data()),
                            .bias = args.bias.data,
                            .residual = reinterpret_cast<const Y*>(args.residual.data),
                            .y = reinterpret_cast<Y*>(args.y.data),
                            .x_stride = args.x.stride,
                            .residual_stride = args.residual.stride,
                            .y_stride = args.y.stride,
                            .out = args.weight.rows,
                            .in = args.weight.cols,
                            .epilogue = args.epilogue,
                            .bf16_bias = args.bias.dtype == DType::kBF16};
  constexpr std::int64_t kPerBlock = kThreads / 32;
  const dim3 blocks(static_cast<unsigned>(args.y.rows),
                    static_cast<unsigned>((p.out + kPerBlock - 1) / kPerBlock));
  plain_kernel<X, Y><<<blocks, kThreads, 0, stream.raw()>>>(p);
  CUDA_CHECK(cudaGetLastError());
}

/// The largest power of two, at most 16, that every row's address is a multiple of.
std::uint8_t alignment_of(const void* data, std::int64_t stride_bytes) {
  const std::uint64_t bits =
      reinterpret_cast<std::uintptr_t>(data) | static_cast<std::uint64_t>(stride_bytes) | 16U;
  return static_cast<std::uint8_t>(bits & (~bits + 1));
}

/// A matrix's stride as cuBLASLt wants it: that of a single row means nothing, but may not be below its
/// length.
std::int64_t leading_dimension(std::int64_t stride, std::int64_t cols) { return std::max(stride, cols); }

/// cuBLASLt's half of the workspace, and the other, for products that are finished elsewhere.
std::span<std::byte> blas_workspace(const CudaStream& stream) {
  return stream.workspace().first(stream.workspace().size() / 2);
}
std::span<std::byte> product_workspace(const CudaStream& stream) {
  return stream.workspace().subspan(stream.workspace().size() / 2);
}

/// Equal distances between the operands of the layers of a group, in bytes; a group of one has none.
struct GroupDistances {
  std::int64_t layers = 1, weight = 0, bias = 0, y = 0;
};

/// The whole of `args`, the first of a group, as a product of cuBLASLt; empty if it cannot express it.
std::optional<LinearShape> product_shape(const LinearArgs& args, const CudaStream& stream,
                                         const GroupDistances& group) {
  FusedEpilogue epilogue = args.bias ? FusedEpilogue::kBias : FusedEpilogue::kNone;
  if (args.bias && (args.bias.dtype != args.y.dtype || !is_vector_aligned(args.bias.data, 0))) return {};
  if (args.epilogue == Epilogue::kRelu) {
    if (args.residual.data != nullptr) return {};
    epilogue = args.bias ? FusedEpilogue::kReluBias : FusedEpilogue::kRelu;
  } else if (args.epilogue != Epilogue::kNone) {
    return {};
  }
  const bool has_residual = args.residual.data != nullptr;
  const std::int64_t x_bytes = dtype_bytes(args.x.dtype);
  const std::int64_t y_bytes = dtype_bytes(args.y.dtype);
  return LinearShape{
      .rows = args.y.rows,
      .out = args.weight.rows,
      .in = args.weight.cols,
      .x_stride = leading_dimension(args.x.stride, args.x.cols),
      .y_stride = leading_dimension(args.y.stride, args.y.cols),
      .residual_stride = has_residual ? leading_dimension(args.residual.stride, args.y.cols) : 0,
      .x = args.x.dtype,
      .y = args.y.dtype,
      .epilogue = epilogue,
      .has_residual = has_residual,
      .layers = group.layers,
      .weight_distance = group.weight / x_bytes,
      .y_distance = group.y / y_bytes,
      .bias_distance = group.bias / y_bytes,
      .x_alignment = alignment_of(args.x.data, args.x.stride * x_bytes),
      .weight_alignment = alignment_of(args.weight.data.data(), args.weight.cols * x_bytes | group.weight),
      .residual_alignment = alignment_of(args.residual.data, args.residual.stride * y_bytes),
      .y_alignment = alignment_of(args.y.data, args.y.stride * y_bytes | group.y),
      .invariance = stream.batch_invariance()};
}

bool can_multiply(const LinearArgs& args, CudaStream& stream) {
  const std::optional<LinearShape> shape = product_shape(args, stream, {});
  return shape && stream.linear_plans().can_run(*shape, args.bias.data, blas_workspace(stream));
}

/// y = epilogue(x W^T + bias) + residual by cuBLASLt alone; false, and nothing is done, if it cannot.
bool multiply(const LinearArgs& args, CudaStream& stream, const GroupDistances& group = {}) {
  const std::optional<LinearShape> shape = product_shape(args, stream, group);
  if (!shape) return false;
  const LinearOperands operands{.x = args.x.data,
                                .weight = args.weight.data.data(),
                                .residual = args.residual.data,
                                .bias = args.bias.data,
                                .y = args.y.data};
  return stream.linear_plans().run(*shape, operands, blas_workspace(stream), stream.raw());
}

/// The plain product in y, then the rest in place. A residual joins the product, whose place it may lie in.
bool multiply_and_finish(const LinearArgs& args, CudaStream& stream) {
  if (args.epilogue != Epilogue::kNone && args.residual.data != nullptr) return false;
  LinearArgs product = args;
  product.bias = {};
  product.epilogue = Epilogue::kNone;
  if (!multiply(product, stream)) return false;
  LinearArgs rest = args;
  rest.residual = {};
  with_result_type(args.y.dtype, [&](auto y) { finish<decltype(y)>(rest, as_const(args.y), stream); });
  return true;
}

/// A residual after an activation may lie in y, so the product goes to the workspace, a few rows at a time.
bool multiply_apart_and_finish(const LinearArgs& args, CudaStream& stream) {
  const std::span<std::byte> memory = product_workspace(stream);
  const std::int64_t stride = (args.y.cols + kVector - 1) / kVector * kVector;
  const std::int64_t rows_at_once =
      static_cast<std::int64_t>(memory.size()) / (stride * dtype_bytes(args.y.dtype));
  if (rows_at_once == 0) return false;
  const auto product_of = [&](std::int64_t first, std::int64_t rows) {
    return LinearArgs{.x = args.x.slice_rows(first, rows),
                      .weight = args.weight,
                      .y = {memory.data(), args.y.dtype, rows, args.y.cols, stride}};
  };
  // Once rows of y, and so perhaps of the residual, are overwritten, nobody else can take over: the whole
  // chunks and the last one must both be possible. All start at multiples of the stride, aligned like the
  // first.
  for (const std::int64_t rows : {std::min(rows_at_once, args.y.rows), args.y.rows % rows_at_once}) {
    if (rows > 0 && !can_multiply(product_of(0, rows), stream)) return false;
  }
  for (std::int64_t first = 0; first < args.y.rows; first += rows_at_once) {
    const std::int64_t rows = std::min(rows_at_once, args.y.rows - first);
    const LinearArgs product = product_of(first, rows);
    if (!multiply(product, stream)) throw_cublas_failure(CUBLAS_STATUS_NOT_SUPPORTED, "a planned product");
    LinearArgs rest = args;
    rest.residual = args.residual.slice_rows(first, rows);
    rest.y = args.y.slice_rows(first, rows);
    with_result_type(args.y.dtype, [&](auto y) { finish<decltype(y)>(rest, as_const(product.y), stream); });
  }
  return true;
}

}  // namespace

namespace detail {

void linear_cuda(const LinearArgs& args, Stream& stream) {
  CudaStream& cuda = as_cuda(stream);
  if (multiply(args, cuda) || multiply_and_finish(args, cuda)) return;
  if (args.residual.data != nullptr && multiply_apart_and_finish(args, cuda)) return;
  with_element_type(args.x.dtype, [&](auto x) {
    using X = decltype(x);
    if (args.y.dtype == DType::kF32) {
      plain<X, float>(args, cuda);
    } else {
      plain<X, X>(args, cuda);
    }
  });
}

bool linear_group_cuda(std::span<const LinearArgs> layers, Stream& stream) {
  CudaStream& cuda = as_cuda(stream);
  // The algorithm of a group is not that of its members, whose bits would depend on where weights lie.
  if (layers.size() < 2 || cuda.batch_invariance() == BatchInvariance::kOn) return false;
  const auto distance = [](const std::byte* from, const std::byte* to) { return to - from; };
  const LinearArgs& first = layers[0];
  const GroupDistances group{
      .layers = static_cast<std::int64_t>(layers.size()),
      .weight = distance(first.weight.data.data(), layers[1].weight.data.data()),
      .bias = first.bias && layers[1].bias ? distance(first.bias.data, layers[1].bias.data) : 0,
      .y = distance(first.y.data, layers[1].y.data)};
  if (group.weight <= 0 || group.y <= 0 || group.bias < 0 || group.bias % 16 != 0) return false;
  for (std::size_t i = 1; i < layers.size(); ++i) {
    const LinearArgs& before = layers[i - 1];
    const LinearArgs& layer = layers[i];
    const bool same_shape =
        layer.weight.rows == first.weight.rows && layer.weight.cols == first.weight.cols &&
        layer.y.rows == first.y.rows && layer.y.stride == first.y.stride && layer.y.dtype == first.y.dtype &&
        layer.bias.dtype == first.bias.dtype && layer.weight.format == first.weight.format &&
        static_cast<bool>(layer.bias) == static_cast<bool>(first.bias);
    if (!same_shape || distance(before.weight.data.data(), layer.weight.data.data()) != group.weight ||
        distance(before.y.data, layer.y.data) != group.y ||
        (layer.bias && distance(before.bias.data, layer.bias.data) != group.bias))
      return false;
  }
  return multiply(first, cuda, group);
}

}  // namespace detail
}  // namespace sluice::kernels
