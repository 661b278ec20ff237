// The matrices of tests/golden/formats/encode_csl.py and encode_pairs24.py, and where their bytes are.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/paths.h"

namespace sluice::kernels::testing {

/// The same function as in encode_csl.py.
inline std::uint32_t golden_noise(std::int64_t r, std::int64_t c) {
  auto h = static_cast<std::uint32_t>(r * 1000003 + c * 10007 + 101) * 2654435761U;
  h ^= h >> 15;
  h *= 2246822519U;
  return h ^ h >> 13;
}
inline std::uint16_t golden_value(std::int64_t r, std::int64_t c) {
  const std::uint32_t h = golden_noise(r, c);
  return static_cast<std::uint16_t>(h >> 31 << 15 | 0x2C00U | (h >> 16 & 0x3FFU));
}

inline bool golden_nonzero(const std::string& name, std::int64_t r, std::int64_t c) {
  const auto random = [&](std::uint32_t percent) {
    return golden_noise(r, c) % 0x10000U * 100 < percent * 0x10000U;
  };
  if (name == "edge" || name == "one_row" || name == "one_column") return random(35);
  if (name == "empty") return false;
  if (name == "two_rows") return r == 0 ? c == 1 : c != 1;
  if (name == "one_lane") return r % 8 == 3 && c / 4 % 4 == 1;
  if (name == "first_steps") return c < 64;
  if (name == "last_step") return c >= 224;
  if (name == "full_and_empty") return r / 128 != c / 64;
  if (name == "nine_rows" || name == "full") return true;
  if (name == "far_rows") return r % 32 == 31;
  if (name == "column_pairs") return c % 4 < 2;
  if (name == "half") return random(50);
  if (name == "fifth") return random(20);
  if (name == "tenth") return random(10);
  if (name == "twentieth") return random(5);
  if (name == "few") return random(1);
  if (name == "flash_llm") return c / 64 != 1 && random(6);
  ADD_FAILURE() << "the script has a case that is not known here: " << name;
  return false;
}

inline std::vector<std::uint16_t> golden_matrix(const std::string& name, std::int64_t rows,
                                                std::int64_t cols) {
  std::vector<std::uint16_t> values;
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < cols; ++c) {
      values.push_back(golden_nonzero(name, r, c) ? golden_value(r, c) : std::uint16_t{0});
    }
  }
  return values;
}

inline std::filesystem::path golden_format(const std::string& name) {
  return ::sluice::testing::golden("formats") / name;
}

}  // namespace sluice::kernels::testing
