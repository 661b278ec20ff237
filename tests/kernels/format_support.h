// What the tests of the stored weight formats share: a matrix with its stored bytes, and the golden files.
#pragma once

#include <algorithm>
#include <cstring>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "kernels/format/format.h"
#include "tests/kernels/weight_cases.h"
#include "tests/support/paths.h"

namespace sluice::kernels::testing {

/// A matrix in its format.
struct StoredMatrix {
  TensorSpec tensor;
  WeightFormat format;
  std::vector<std::byte> bytes;

  StoredMatrix(WeightFormat stored_format, std::int64_t rows, std::int64_t cols,
               const std::vector<std::uint16_t>& values)
      : tensor{"decoder.layers.0.fc1.weight", 1, rows, cols, false, SplitRule::kRows},
        format(stored_format),
        bytes(encode_matrix(tensor, format, values)) {}

  WeightView view() const { return {format, bytes, tensor.rows, tensor.cols}; }
  void check() const { codec_of(format.encoding).check(view(), tensor.name); }
  std::vector<std::uint16_t> expand(std::int64_t first_row, std::int64_t num_rows) const {
    std::vector<std::uint16_t> out(static_cast<std::size_t>(num_rows * tensor.cols), 0xDEADU);
    codec_of(format.encoding).expand(view(), first_row, num_rows, out);
    return out;
  }
  std::vector<std::uint16_t> expand() const { return expand(0, tensor.rows); }

  /// Changes stored bytes; `at` counts from the start.
  void set_8(std::int64_t at, unsigned value) {
    bytes.at(static_cast<std::size_t>(at)) = static_cast<std::byte>(value);
  }
  void set_16(std::int64_t at, unsigned value) {
    set_8(at, value & 0xFFU);
    set_8(at + 1, value >> 8);
  }
  void set_32(std::int64_t at, unsigned value) {
    set_16(at, value & 0xFFFFU);
    set_16(at + 2, value >> 16);
  }
};

inline std::vector<std::uint32_t> words_of(std::span<const std::byte> bytes) {
  std::vector<std::uint32_t> words(bytes.size() / sizeof(std::uint32_t));
  std::memcpy(words.data(), bytes.data(), bytes.size());
  return words;
}

/// Negative zeros as zeros, which is how every format holds them.
inline std::vector<std::uint16_t> canonical(std::vector<std::uint16_t> values) {
  std::replace(values.begin(), values.end(), std::uint16_t{0x8000}, std::uint16_t{0});
  return values;
}

inline std::vector<float> to_floats(const std::vector<std::uint16_t>& values, DType dtype) {
  std::vector<float> out;
  out.reserve(values.size());
  for (const std::uint16_t bits : values) {
    out.push_back(dtype == DType::kF16 ? to_float(Half{bits}) : to_float(BFloat16{bits}));
  }
  return out;
}

inline std::vector<std::uint16_t> to_bits(const std::vector<float>& values, DType dtype) {
  std::vector<std::uint16_t> out;
  out.reserve(values.size());
  for (const float value : values) {
    out.push_back(dtype == DType::kF16 ? to_half(value).bits : to_bfloat16(value).bits);
  }
  return out;
}

/// The check refuses the matrix as corrupt, naming the tensor and `what`.
inline void expect_corrupt(const StoredMatrix& matrix, const std::string& what) {
  try {
    matrix.check();
    ADD_FAILURE() << weight_format_name(matrix.format) << " passed the check: " << what;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kCorrupt);
    EXPECT_THAT(error.what(), ::testing::HasSubstr("tensor decoder.layers.0.fc1.weight: "));
    EXPECT_THAT(error.what(), ::testing::HasSubstr(what));
    EXPECT_THAT(error.what(), ::testing::HasSubstr("convert the checkpoint again"));
  }
}

/// A damage to a stored matrix, and what the check says of it.
struct Mutation {
  std::string what;
  std::function<void(StoredMatrix&)> apply;
};
inline void expect_each_refused(const StoredMatrix& good, const std::vector<Mutation>& mutations) {
  EXPECT_NO_THROW(good.check());
  for (const Mutation& mutation : mutations) {
    StoredMatrix damaged = good;
    mutation.apply(damaged);
    expect_corrupt(damaged, mutation.what);
  }
}

/// A line of tests/golden/formats (tests/golden/SOURCE.md).
struct GoldenMatrix {
  std::string name;
  WeightFormat format;
  std::int64_t rows = 0, cols = 0;
  std::vector<std::uint16_t> values;
  std::vector<std::byte> stored;
};

/// The inverse of to_text() in tests/golden/formats/numbers_16.py.
inline std::vector<std::byte> parse_golden_bytes(const std::string& text) {
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i < text.size(); i += 2) {
    bytes.push_back(static_cast<std::byte>(std::stoi(text.substr(i, 2), nullptr, 16)));
    if (i + 2 < text.size() && text[i + 2] == '*') {
      const std::size_t comma = text.find(',', i);
      bytes.resize(bytes.size() + std::stoul(text.substr(i + 3, comma - i - 3)) - 1, bytes.back());
      i = comma - 1;
    }
  }
  return bytes;
}

inline std::vector<GoldenMatrix> read_golden_matrices(const std::string& file) {
  std::ifstream in(sluice::testing::golden("formats/" + file));
  std::vector<GoldenMatrix> matrices;
  GoldenMatrix current;
  std::string kind, word, data;
  while (in >> kind) {
    if (kind == "matrix") {
      in >> current.name >> word >> current.rows >> current.cols >> data;
      current.format.dtype = *parse_dtype(word);
      const std::vector<std::byte> bytes = parse_golden_bytes(data);
      current.values.resize(bytes.size() / 2);
      std::memcpy(current.values.data(), bytes.data(), bytes.size());
    } else {
      in >> word >> data;
      current.format.encoding = *parse_encoding(word);
      current.stored = parse_golden_bytes(data);
      matrices.push_back(current);
    }
  }
  EXPECT_FALSE(matrices.empty()) << file;
  return matrices;
}

/// Every golden matrix is encoded to the same bytes, which pass the check.
inline void expect_golden_bytes(const std::string& file) {
  for (const GoldenMatrix& golden : read_golden_matrices(file)) {
    SCOPED_TRACE(golden.name + " " + weight_format_name(golden.format));
    const StoredMatrix matrix(golden.format, golden.rows, golden.cols, golden.values);
    EXPECT_TRUE(matrix.bytes == golden.stored)
        << "first difference at byte "
        << std::mismatch(matrix.bytes.begin(), matrix.bytes.end(), golden.stored.begin(), golden.stored.end())
                   .first -
               matrix.bytes.begin()
        << " of " << matrix.bytes.size() << " and " << golden.stored.size();
    EXPECT_NO_THROW(matrix.check());
  }
}

}  // namespace sluice::kernels::testing
