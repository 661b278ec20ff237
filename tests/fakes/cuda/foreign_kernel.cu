// Compiled for one architecture that Sluice does not support (tests/fakes/CMakeLists.txt).
#include "tests/fakes/cuda/cuda_faults.h"

namespace sluice::kernels::fakes {
namespace {

__global__ void foreign_kernel() {}

}  // namespace

const void* foreign_kernel_address() { return reinterpret_cast<const void*>(foreign_kernel); }

}  // namespace sluice::kernels::fakes
