// What every container's header comes down to: where in which file the elements of each tensor lie.
// Plain data and functions over it; thread-safe when const.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/checkpoint/byte_source.h"
#include "core/checkpoint/reader.h"

namespace sluice {

/// Where the elements of a tensor lie in its file.
struct TensorPlace {
  std::int64_t data_offset = 0;       ///< byte of element 0
  std::vector<std::int64_t> strides;  ///< in elements, one per dimension; empty: row-major without gaps
};

struct TensorRecord {
  CheckpointTensor tensor;
  TensorPlace place;
};

/// Largest rank that any container may ask for; real weights have one or two dimensions.
inline constexpr std::size_t kMaxRank = 32;

/// Product of `shape`; empty if a size is negative or the bytes of the tensor do not fit in 63 bits.
std::optional<std::int64_t> checked_elements(std::span<const std::int64_t> shape, DType dtype);

/// "[2050, 768]"
std::string shape_text(std::span<const std::int64_t> shape);

/// Copies elements [first, first + count) in row-major order to `out` (count * dtype_bytes). Strided
/// tensors are gathered through a window of at most 16 MiB. Throws as ByteSource::read_at.
void read_elements(ByteSource& source, const CheckpointTensor& tensor, const TensorPlace& place,
                   std::int64_t first, std::int64_t count, std::span<std::byte> out);

}  // namespace sluice
