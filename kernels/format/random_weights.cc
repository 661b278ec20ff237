#include "kernels/format/random_weights.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "core/error.h"
#include "kernels/format/dense/dense.h"

namespace sluice::kernels {
namespace {

struct Distribution {
  double std = 0, mean = 0;
};

Distribution distribution_of(const TensorSpec& tensor, const ModelSpec& spec) {
  const std::string_view name = tensor.name;
  if (tensor.is_vector) {
    const bool is_gain = name.ends_with(".weight");  // the only vectors with this name are norm weights
    return {0.02, is_gain ? 1.0 : 0.0};
  }
  const double std = 1.0 / std::sqrt(static_cast<double>(tensor.cols));
  const bool ends_in_residual = name.ends_with("out_proj.weight") || name.ends_with("fc2.weight");
  // Each layer adds two such products to the residual stream, whose variance then grows to 1 over the whole
  // depth (the GPT-2 initialisation, Radford et al. 2019, section 2.3).
  return {ends_in_residual ? std / std::sqrt(2.0 * static_cast<double>(spec.num_layers)) : std, 0.0};
}

}  // namespace

std::uint64_t random_key(std::string_view name, std::uint64_t seed) {
  std::uint64_t hash = 0xCBF29CE484222325U;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
  hash += seed * 0x9E3779B97F4A7C15U;
  hash = (hash ^ (hash >> 30)) * 0xBF58476D1CE4E5B9U;
  hash = (hash ^ (hash >> 27)) * 0x94D049BB133111EBU;
  return hash ^ (hash >> 31);
}

void random_tensor(const TensorSpec& tensor, const ModelSpec& spec, WeightFormat format, std::uint64_t seed,
                   std::span<std::byte> out) {
  SLUICE_ASSERT(static_cast<std::int64_t>(out.size()) == weight_bytes(format, tensor.rows, tensor.cols));
  random_tensor_range(tensor, spec, format, seed, 0, out);
}

void random_tensor_range(const TensorSpec& tensor, const ModelSpec& spec, WeightFormat format,
                         std::uint64_t seed, std::int64_t first_byte, std::span<std::byte> out) {
  constexpr std::int64_t kElementBytes = 2;  // of both dense formats
  const auto bytes = static_cast<std::int64_t>(out.size());
  SLUICE_ASSERT(first_byte >= 0 && first_byte % kElementBytes == 0 && bytes % kElementBytes == 0);
  SLUICE_ASSERT(first_byte + bytes <= weight_bytes(format, tensor.rows, tensor.cols));
  const Distribution wanted = distribution_of(tensor, spec);
  const auto scale = static_cast<float>(wanted.std / detail::kTriangularStd);
  const auto mean = static_cast<float>(wanted.mean);
  const std::uint64_t key = random_key(tensor.name, seed);
  const std::int64_t first = first_byte / kElementBytes;
  const std::int64_t count = bytes / kElementBytes;

  std::array<float, 2048> block;  // stays in L1 between making and rounding
  const auto block_size = static_cast<std::int64_t>(block.size());
  for (std::int64_t i = 0; i < count; i += block_size) {
    const std::int64_t n = std::min(block_size, count - i);
    detail::random_floats(key, first + i, n, scale, mean, block.data());
    std::byte* const to = out.data() + i * kElementBytes;
    if (format == WeightFormat::kDenseF16) {
      detail::narrow_to_f16(block.data(), n, reinterpret_cast<Half*>(to));
    } else {
      detail::narrow_to_bf16(block.data(), n, reinterpret_cast<BFloat16*>(to));
    }
  }
}

}  // namespace sluice::kernels
