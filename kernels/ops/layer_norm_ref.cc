#include <cmath>

#include "kernels/ops/reference.h"

namespace sluice::kernels {

std::vector<Expected> layer_norm_ref(const LayerNormArgs& args) {
  const std::int64_t n = args.x.cols;
  const auto count = static_cast<double>(n);
  std::vector<Expected> y;
  y.reserve(static_cast<std::size_t>(args.x.rows * n));
  for (std::int64_t t = 0; t < args.x.rows; ++t) {
    const auto x = [&](std::int64_t i) { return element(args.x.data, args.x.dtype, t * args.x.stride + i); };
    double sum = 0;
    double sum_abs = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      sum += x(i);
      sum_abs += std::abs(x(i));
    }
    const double mean = sum / count;
    double squares = 0;
    for (std::int64_t i = 0; i < n; ++i) squares += (x(i) - mean) * (x(i) - mean);
    const double scale = 1 / std::sqrt(squares / count + static_cast<double>(args.eps));

    // The mean is off by at most (n + 1) u mean|x|; that shifts every difference. In the variance the shift
    // appears squared, and its n roundings reach the scale halved.
    const double mean_error = (count + 1) * kFp32Rounding * sum_abs / count;
    const double variance_error = mean_error * mean_error * scale * scale + (count + 4) * kFp32Rounding;
    for (std::int64_t i = 0; i < n; ++i) {
      const double gamma = args.gamma ? element(args.gamma.data, args.gamma.dtype, i) : 1;
      const double beta = args.beta ? element(args.beta.data, args.beta.dtype, i) : 0;
      const double z = (x(i) - mean) * scale;
      const double error =
          std::abs(gamma) * (scale * mean_error + std::abs(z) * (variance_error / 2 + 6 * kFp32Rounding)) +
          2 * kFp32Rounding * (std::abs(gamma * z) + std::abs(beta));
      y.push_back({z * gamma + beta, error});
    }
  }
  return y;
}

}  // namespace sluice::kernels
