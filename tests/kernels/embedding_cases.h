// Cases of embedding, for the tests of every device.
#pragma once

#include <cstdint>

#include "kernels/format/weight_view.h"

namespace sluice::kernels::testing {

struct EmbeddingCase {
  const char* name;
  std::int64_t tokens, rows, dim, padding;
  WeightFormat format;
  bool accumulate;
};

inline const EmbeddingCase kEmbeddingCases[] = {
    {"one", 1, 1, 1, 0, WeightFormat::kDenseF16, false},
    {"tail", 7, 5, 37, 2, WeightFormat::kDenseF16, false},
    {"accumulated", 40, 9, 64, 0, WeightFormat::kDenseF16, true},
    {"accumulated_tail", 3, 9, 19, 1, WeightFormat::kDenseBF16, true},
    {"bf16", 70, 11, 48, 0, WeightFormat::kDenseBF16, false},
    {"wide", 5, 4, 7168, 8, WeightFormat::kDenseF16, false},
    {"wide_accumulated", 5, 4, 7168, 0, WeightFormat::kDenseBF16, true},
    {"no_tokens", 0, 11, 48, 0, WeightFormat::kDenseBF16, true},
};

}  // namespace sluice::kernels::testing
