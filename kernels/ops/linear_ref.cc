#include <cmath>

#include "kernels/ops/reference.h"

namespace sluice::kernels {
namespace {

double apply(Epilogue epilogue, double x) {
  switch (epilogue) {
    case Epilogue::kNone:
      return x;
    case Epilogue::kRelu:
      return x > 0 ? x : 0;
    case Epilogue::kGelu:
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case Epilogue::kGeluTanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
  }
  return x;
}

/// What the activation itself may add. The slopes of both gelus are below 1.13.
double activation_error(Epilogue epilogue, double x, double input_error) {
  switch (epilogue) {
    case Epilogue::kNone:
    case Epilogue::kRelu:
      return input_error;
    case Epilogue::kGelu:
    case Epilogue::kGeluTanh:
      // 1.5e-7 of the erf polynomial (also above tanh's few ulp), and some 16 roundings of values up to |x|.
      return 1.13 * input_error + std::abs(x) * (0.75e-7 + 16 * kFp32Rounding);
  }
  return input_error;
}

}  // namespace

std::vector<Expected> linear_ref(const LinearArgs& args) {
  const DType dtype = args.weight.format.dtype;
  const std::int64_t k = args.x.cols;
  std::vector<Expected> y;
  y.reserve(static_cast<std::size_t>(args.y.rows * args.y.cols));
  for (std::int64_t t = 0; t < args.y.rows; ++t) {
    for (std::int64_t f = 0; f < args.y.cols; ++f) {
      double sum = 0;
      double sum_abs = 0;
      for (std::int64_t i = 0; i < k; ++i) {
        const double product = element(args.x.data, args.x.dtype, t * args.x.stride + i) *
                               element(args.weight.data.data(), dtype, f * k + i);
        sum += product;
        sum_abs += std::abs(product);
      }
      const double bias = args.bias ? element(args.bias.data, args.bias.dtype, f) : 0;
      // k products and k additions (one rounding each, less with multiply-add), the lanes' tree, the bias.
      const double dot_error = static_cast<double>(k + 6) * kFp32Rounding * (sum_abs + std::abs(bias));
      const double before = sum + bias;
      double value = apply(args.epilogue, before);
      double error = activation_error(args.epilogue, before, dot_error);
      if (args.residual.data != nullptr) {
        value += element(args.residual.data, args.residual.dtype, t * args.residual.stride + f);
        error += kFp32Rounding * std::abs(value);
      }
      y.push_back({value, error});
    }
  }
  return y;
}

}  // namespace sluice::kernels
