// The sparse formats byte by byte, against encoders in Python (tests/golden/formats/encode_csl.py and
// encode_pairs24.py).
#include <fstream>

#include <boost/crc.hpp>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/kernels/csl_fixture.h"
#include "tests/kernels/csl_golden.h"

namespace sluice::kernels {
namespace {

using testing::StoredMatrix;

std::vector<std::byte> content_of(const std::filesystem::path& path) {
  std::vector<std::byte> bytes(std::filesystem::file_size(path));
  std::ifstream(path, std::ios::binary)
      .read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

/// Of all cases of a file, so many of them with their bytes.
void expect_golden(const std::string& file, int expected_cases, int expected_files) {
  std::ifstream in(testing::golden_format(file));
  std::string encoding, name;
  std::int64_t rows = 0, cols = 0, num_bytes = 0;
  std::uint32_t expected_crc = 0;
  int num_cases = 0, num_files = 0;
  while (in >> encoding >> name >> rows >> cols >> num_bytes >> std::hex >> expected_crc >> std::dec) {
    SCOPED_TRACE(encoding + " " + name);
    ++num_cases;
    const auto values = testing::golden_matrix(name, rows, cols);
    StoredMatrix matrix = StoredMatrix::encode({*parse_encoding(encoding), DType::kF16}, rows, cols, values);
    EXPECT_EQ(static_cast<std::int64_t>(matrix.bytes.size()), num_bytes);
    const auto path = testing::golden_format(fmt::format("{}_{}.bin", encoding, name));
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

TEST(CslGolden, AreTheBytesThatThePageDescribes) { expect_golden("csl_cases.txt", 22, 10); }
TEST(Pairs24Golden, AreTheBytesThatThePageDescribes) { expect_golden("pairs24_cases.txt", 14, 2); }

std::vector<std::byte> bytes_of(std::initializer_list<int> list) {
  std::vector<std::byte> bytes;
  for (const int x : list) bytes.push_back(static_cast<std::byte>(x));
  return bytes;
}

TEST(CslGolden, AreThePagesWorkedExamples) {
  const std::vector<std::uint16_t> values = {0, 0x3C00, 0, 0x4000, 0, 0x4200};
  // clang-format off
  EXPECT_EQ(StoredMatrix::encode({Encoding::kTiledCsl, DType::kF16}, 2, 3, values).bytes, bytes_of({
      0x00, 0x3C, 0x02, 0x00,  0x00, 0x00, 0x04, 0x00,  0x00, 0x40, 0x90, 0x00,  0x00, 0x42, 0x94, 0x00,
      0x00, 0x00, 0x00, 0x00,  0x01, 0x00, 0x00, 0x00,  0x00, 0x00, 0x00, 0x00,  0x00, 0x00, 0x00, 0x00}));
  EXPECT_EQ(StoredMatrix::encode({Encoding::kBankCsl, DType::kF16}, 2, 3, values).bytes, bytes_of({
      0x00, 0x00, 0x00, 0x00,  0x04, 0x00, 0x00, 0x00,  0x02, 0x00, 0x00, 0x00,  0x00, 0x00, 0x00, 0x00,
      0x00, 0x3C, 0x02, 0x00,  0x00, 0x00, 0x04, 0x00,  0x00, 0x40, 0x90, 0x00,  0x00, 0x42, 0x94, 0x00,
      0x00, 0x00, 0x00, 0x00,  0x02, 0x00, 0x00, 0x00,  0x00, 0x00, 0x00, 0x00,  0x00, 0x00, 0x00, 0x00}));
  // clang-format on
}

}  // namespace
}  // namespace sluice::kernels
