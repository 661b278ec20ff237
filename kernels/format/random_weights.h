// Weights of synthetic models, made directly in their stored format: a pure function of (seed, tensor name,
// element), so any thread may make any part. Thread-safe.
//
// Scales keep activations finite through any number of layers: matrices have standard deviation 1/sqrt(in
// features), the two that end in the residual stream 1/sqrt(2 num_layers) of that; norm weights are 1 +-
// 0.02, biases 0 +- 0.02. Values have a triangular distribution and are the same on every machine and SIMD
// target.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "core/format.h"
#include "core/model/spec.h"

namespace sluice::kernels {

/// Fills `out` with the tensor's stored bytes; `out` has exactly weight_bytes(format, rows, cols) bytes.
void random_tensor(const TensorSpec& tensor, const ModelSpec& spec, WeightFormat format, std::uint64_t seed,
                   std::span<std::byte> out);

/// The stored bytes [first_byte, first_byte + out.size()) of the same tensor; both are multiples of the
/// element's size. Throws Error{kInternal} outside the tensor.
void random_tensor_range(const TensorSpec& tensor, const ModelSpec& spec, WeightFormat format,
                         std::uint64_t seed, std::int64_t first_byte, std::span<std::byte> out);

/// What the values of a tensor are drawn by: FNV-1a of the name, then the finaliser of SplitMix64 over name
/// and seed.
std::uint64_t random_key(std::string_view name, std::uint64_t seed);

namespace detail {
/// out[i] = offset + scale * t, t a whole number in -65535..65535 that depends on (key, first + i) alone,
/// with standard deviation kTriangularStd.
void random_floats(std::uint64_t key, std::int64_t first, std::int64_t count, float scale, float offset,
                   float* out);
inline constexpr double kTriangularStd =
    26754.94;  // sqrt(2 (2^32 - 1) / 12): the sum of two uniform 16-bit numbers
}  // namespace detail

}  // namespace sluice::kernels
