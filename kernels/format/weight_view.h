// A weight matrix in its stored format, as operators take it. Borrows its bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/format.h"

namespace sluice::kernels {

struct WeightView {
  WeightFormat format = WeightFormat::kDenseF16;
  std::span<const std::byte> data;  ///< exactly the stored bytes
  std::int64_t rows = 0;            ///< output features
  std::int64_t cols = 0;            ///< input features
};

}  // namespace sluice::kernels
