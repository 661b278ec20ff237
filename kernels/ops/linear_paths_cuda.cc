#include "kernels/ops/linear_paths_cuda.h"

#include <algorithm>

#include "kernels/ops/linear_slices.h"

namespace sluice::kernels {

LinearPaths::LinearPaths(std::string_view device, int compute_capability,
                         std::span<const LinearPath> measured, std::span<const FusedKernel> kernels) {
  for (const LinearPath& path : measured) {
    if (!device.starts_with(path.device)) continue;
    if (path.kernel.empty()) {
      paths_.push_back({&path, nullptr});
      continue;
    }
    const auto kernel = std::ranges::find(kernels, path.kernel, &FusedKernel::name);
    if (kernel != kernels.end() && kernel->runs_on(compute_capability)) paths_.push_back({&path, &*kernel});
  }
}

const FusedKernel* LinearPaths::kernel_for(const LinearArgs& args, const FusedMemoryBytes& memory) const {
  const WeightView& weight = args.weight;
  const std::int64_t elements = weight.rows * weight.cols;
  const double bytes = static_cast<double>(weight.data.size()) / static_cast<double>(elements);
  for (const auto& [path, kernel] : paths_) {
    const bool covers = path->encoding == weight.format.encoding && elements >= path->least_elements &&
                        bytes <= path->most_bytes && args.y.rows <= path->most_rows;
    if (!covers) continue;
    if (kernel == nullptr) return nullptr;
    const std::int64_t rows = std::min(args.y.rows, kernel->max_rows);
    if (!kernel->can_run(detail::rows_of(args, 0, rows))) continue;
    if (memory.cover(kernel->memory_bytes(weight.format, weight.rows, weight.cols, rows))) return kernel;
  }
  return nullptr;
}

}  // namespace sluice::kernels
