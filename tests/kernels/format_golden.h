// The matrices of tests/golden/formats/encode_csl.py and encode_pairs24.py, and the bytes that each sparse
// format must give them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <boost/crc.hpp>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/kernels/format_support.h"
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
  if (name == "both_kinds") return random(c < 256 ? 50 : 10);
  if (name == "entries_16") return r / 16 == 1 && c < 3;
  if (name == "entries_17") return r / 16 == 1 && (c < 3 || (r == 16 && c == 3));
  if (name == "full_quads") return r % 16 < 3 && c / 4 % 8 == 5;
  if (name == "last_quad") return r == 63 && c >= 252;
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

inline std::vector<std::byte> content_of(const std::filesystem::path& path) {
  std::vector<std::byte> bytes(std::filesystem::file_size(path));
  std::ifstream(path, std::ios::binary)
      .read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

/// Encodes the matrices of a file of cases, so many of them with their bytes in a file each.
inline void expect_golden(const std::string& file, int expected_cases, int expected_files) {
  std::ifstream in(golden_format(file));
  std::string encoding, name;
  std::int64_t rows = 0, cols = 0, num_bytes = 0;
  std::uint32_t expected_crc = 0;
  int num_cases = 0, num_files = 0;
  while (in >> encoding >> name >> rows >> cols >> num_bytes >> std::hex >> expected_crc >> std::dec) {
    SCOPED_TRACE(encoding + " " + name);
    ++num_cases;
    const auto values = golden_matrix(name, rows, cols);
    StoredMatrix matrix({*parse_encoding(encoding), DType::kF16}, rows, cols, values);
    EXPECT_EQ(static_cast<std::int64_t>(matrix.bytes.size()), num_bytes);
    const auto path = golden_format(fmt::format("{}_{}.bin", encoding, name));
    if (std::filesystem::exists(path)) {
      ++num_files;
      const auto expected = content_of(path);
      EXPECT_EQ(matrix.bytes, expected);
      matrix.bytes = expected;
      matrix.check();
      EXPECT_EQ(matrix.expand(), values);
    }
    boost::crc_32_type crc;
    crc.process_bytes(matrix.bytes.data(), matrix.bytes.size());
    EXPECT_EQ(crc.checksum(), expected_crc);
  }
  EXPECT_EQ(num_cases, expected_cases);
  EXPECT_EQ(num_files, expected_files);
}

}  // namespace sluice::kernels::testing
