// Which SIMD instruction set the CPU kernels use. Results are bit-identical on one machine and one target;
// between targets they differ by rounding. Reading is thread-safe; forcing a target is for tests and
// benchmarks, while no operator runs.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace sluice::kernels {

/// The targets that this build holds and this machine can run, best first: "AVX3", "AVX2", "SSE4", "SCALAR".
std::vector<std::string> simd_targets();

/// The target in use: the best one unless another is forced.
std::string simd_target();

/// From now on the operators use target `name`, or the best one if empty.
/// Throws Error{kUnsupported} for a target that is not in simd_targets().
void force_simd_target(std::string_view name);

}  // namespace sluice::kernels
