#include "kernels/ops/reference.h"

namespace sluice::kernels {

std::vector<Expected> embedding_ref(const EmbeddingArgs& args) {
  const DType dtype = args.table.format.dtype;
  std::vector<Expected> y;
  y.reserve(static_cast<std::size_t>(args.y.rows * args.y.cols));
  for (std::int64_t t = 0; t < args.y.rows; ++t) {
    for (std::int64_t i = 0; i < args.y.cols; ++i) {
      const std::int64_t id = args.ids[static_cast<std::size_t>(t)];
      const double value = element(args.table.data.data(), dtype, id * args.table.cols + i);
      // Widening is exact; one addition rounds as IEEE says.
      if (!args.accumulate) {
        y.push_back({value, 0});
      } else {
        const double old = element(args.y.data, args.y.dtype, t * args.y.stride + i);
        y.push_back({static_cast<double>(static_cast<float>(old) + static_cast<float>(value)), 0});
      }
    }
  }
  return y;
}

}  // namespace sluice::kernels
