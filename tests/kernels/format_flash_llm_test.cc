// Flash-LLM's own files, as an encoder in Python writes them (tests/golden/formats/encode_csl.py).
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/format/tile_table.h"
#include "kernels/format/tiled_csl/flash_llm_import.h"
#include "tests/kernels/format_golden.h"
#include "tests/kernels/format_support.h"
#include "tests/support/error_of.h"

namespace sluice::kernels {
namespace {

using ::sluice::testing::error_of;
using ::testing::HasSubstr;
using testing::StoredMatrix;

class FlashLlmImport : public ::testing::Test {
 protected:
  std::vector<std::uint16_t> import() const {
    return import_flash_llm({rows, cols, words, offsets}, "layers.0.mlp.NZWeights");
  }
  void expect_refused(const std::string& message, Code code = Code::kCorrupt) const {
    const Error error = error_of([&] { import(); });
    EXPECT_EQ(error.code(), code);
    EXPECT_THAT(error.what(), HasSubstr("layers.0.mlp.NZWeights: "));
    EXPECT_THAT(error.what(), HasSubstr(message));
    EXPECT_FALSE(error.fix().empty());
  }

  std::vector<std::uint32_t> words =
      read_flash_llm_file<std::uint32_t>(testing::golden_format("flash_llm.NZWeights.bin"));
  std::vector<std::int32_t> offsets =
      read_flash_llm_file<std::int32_t>(testing::golden_format("flash_llm.TileOffsets.bin"));
  std::int64_t rows = 128, cols = 192;
};

TEST_F(FlashLlmImport, ReadsTheFilesOfTheirEncoder) {
  const auto values = import();
  EXPECT_EQ(values, testing::golden_matrix("flash_llm", rows, cols));
  // The same words as ours, in another order.
  const StoredMatrix ours({Encoding::kTiledCsl, DType::kF16}, rows, cols, values);
  EXPECT_EQ(ours.expand(), values);
  EXPECT_EQ(static_cast<std::int64_t>(ours.bytes.size()) - tile_table_bytes(3),
            static_cast<std::int64_t>(words.size() * sizeof(words[0])));
}

TEST_F(FlashLlmImport, RefusesOffsetsThatAreNoTiles) {
  offsets[2] = offsets[1] - 1;
  expect_refused("tile 1 of 3: covers words");
  offsets[2] = offsets[3] + 1;
  expect_refused("tile 1 of 3: covers words");
  offsets[2] = offsets[1];
  offsets[1] = -1;
  expect_refused("tile 0 of 3: covers words 0 to -4 of");
  offsets.pop_back();
  expect_refused("4 tile offsets instead of 5");
}

TEST_F(FlashLlmImport, RefusesAnotherTotal) {
  words.push_back(0);
  expect_refused("of " + std::to_string(words.size()));
  words.pop_back();
  ++offsets.back();
  expect_refused("tiles from word 0 to");
}

TEST_F(FlashLlmImport, RefusesPositionsAndValuesOfNoTile) {
  const std::uint32_t first = words[0];
  for (const auto& [word, message] : std::vector<std::pair<std::uint32_t, const char*>>{
           {0x20003C00U, "tile 0 of 3: position 8192 is none of its 8192 elements"},
           {0x80003C00U, "tile 0 of 3: position -32768 is none of its"},
           {words[1], "tile 0 of 3: two nonzeros at byte offset"},
           {words[1] & 0xFFFF0000U, "tile 0 of 3: a zero and a nonzero at byte offset"},
           {(first & 0xFFFF0000U) | 0x7C00U, "is not finite"}}) {
    words[0] = word;
    expect_refused(message);
  }
}

TEST_F(FlashLlmImport, RefusesShapesOfPartsOfTiles) {
  for (const auto& [r, c] :
       std::vector<std::pair<std::int64_t, std::int64_t>>{{127, 192}, {128, 96}, {0, 192}}) {
    rows = r;
    cols = c;
    expect_refused("is no whole number of tiles", Code::kInvalidArgument);
  }
}

TEST(FlashLlmFile, SaysWhatIsWrongWithIt) {
  EXPECT_EQ(error_of([] { read_flash_llm_file<std::int32_t>(testing::golden_format("missing.bin")); }).code(),
            Code::kIo);
  const std::filesystem::path odd = std::filesystem::path(::testing::TempDir()) / "flash_llm_odd.bin";
  std::ofstream(odd) << "12345";
  const Error error = error_of([&] { read_flash_llm_file<std::uint32_t>(odd); });
  std::filesystem::remove(odd);
  EXPECT_EQ(error.code(), Code::kCorrupt);
  EXPECT_THAT(error.what(), HasSubstr("flash_llm_odd.bin: 5 bytes"));
}

}  // namespace
}  // namespace sluice::kernels
