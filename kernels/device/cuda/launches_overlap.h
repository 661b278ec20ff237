// Whether kernels of this build may overlap on the current device. CUDA builds only.
#pragma once

namespace sluice::kernels::detail {

/// The device has compute capability 9 or later, and the kernels were compiled for that, so that they wait
/// for what ran before them (kernels/device/cuda/launch.cuh).
bool launches_overlap();

}  // namespace sluice::kernels::detail
