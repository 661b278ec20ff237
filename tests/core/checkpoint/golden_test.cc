// Real checkpoints, read by Sluice and compared with what Python's own json, zipfile and pickle read
// (tests/golden/list_tensors.py).
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>

#include <boost/crc.hpp>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include "core/checkpoint/model_map.h"
#include "core/checkpoint/reader.h"
#include "core/model/hf_config.h"
#include "tests/support/paths.h"

namespace sluice {
namespace {

using Lines = std::map<std::string, std::string>;  // "file name" to "dtype shape crc32"

Lines expected_of(const std::string& folder, const std::string& extension) {
  std::ifstream in(testing::golden("tensors.txt"));
  Lines lines;
  std::string file, name, dtype, shape, crc;
  while (in >> file >> name >> dtype >> shape >> crc) {
    if (!file.starts_with(fmt::format("{}/", folder)) || !file.ends_with(extension)) continue;
    lines[fmt::format("{} {}", file.substr(folder.size() + 1), name)] =
        fmt::format("{} {} {}", dtype, shape, crc);
  }
  EXPECT_FALSE(lines.empty()) << folder << extension;
  return lines;
}

/// Reads every tensor in pieces of `piece` elements.
Lines read_all(CheckpointReader& reader, std::int64_t piece) {
  Lines lines;
  for (std::size_t t = 0; t < reader.tensors().size(); ++t) {
    const CheckpointTensor& tensor = reader.tensors()[t];
    boost::crc_32_type crc;
    for (std::int64_t first = 0; first < tensor.num_elements(); first += piece) {
      const std::int64_t count = std::min(piece, tensor.num_elements() - first);
      std::vector<std::byte> bytes(static_cast<std::size_t>(count * dtype_bytes(tensor.dtype)));
      reader.read(t, first, count, bytes);
      crc.process_bytes(bytes.data(), bytes.size());
    }
    const std::string shape = fmt::format("{}", fmt::join(tensor.shape, ","));
    lines[fmt::format("{} {}", tensor.file.filename().string(), tensor.name)] =
        fmt::format("{} {} {:08x}", dtype_name(tensor.dtype), shape, crc.checksum());
  }
  return lines;
}

struct Case {
  const char* folder;
  const char* path;  ///< below the folder; empty: the folder itself
  const char* extension;
};

class GoldenCheckpoint : public ::testing::TestWithParam<Case> {};

TEST_P(GoldenCheckpoint, HoldsTheBytesThatPythonReads) {
  const Case& c = GetParam();
  const auto reader = open_checkpoint(testing::golden(c.folder) / c.path);
  EXPECT_EQ(read_all(*reader, 1 << 20), expected_of(c.folder, c.extension));
  EXPECT_EQ(read_all(*reader, 1021), expected_of(c.folder, c.extension));
}

INSTANTIATE_TEST_SUITE_P(
    Containers, GoldenCheckpoint,
    ::testing::Values(Case{"rand-opt-postln", "", ".safetensors"},  // preferred to the .bin beside it
                      Case{"rand-opt-postln", "model.safetensors", ".safetensors"},
                      Case{"rand-opt-postln", "pytorch_model.bin", ".bin"},
                      Case{"rand-opt-bin-sharded", "", ".bin"},
                      Case{"rand-opt-bin-sharded", "pytorch_model.bin.index.json", ".bin"},
                      Case{"rand-opt-bin-sharded", "pytorch_model-00002-of-00002.bin", "2-of-00002.bin"},
                      Case{"tiny-opt-books-sparse80", "", ".safetensors"}),
    [](const auto& param) { return fmt::format("Case{}", param.index); });

TEST(GoldenCheckpoint, FitsItsOwnConfig) {
  for (const char* folder : {"rand-opt-postln", "rand-opt-bin-sharded", "tiny-opt-books-sparse80"}) {
    const ModelSpec spec = read_hf_config(testing::golden(folder) / "config.json");
    const auto reader = open_checkpoint(testing::golden(folder));
    const ModelMap map = map_model_tensors(spec, reader->tensors());
    const std::vector<TensorSpec> wanted = model_tensors(spec);
    ASSERT_EQ(map.source.size(), wanted.size());
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      EXPECT_EQ(canonical_tensor_name(spec, reader->tensors()[map.source[i]].name), wanted[i].name);
    }
    EXPECT_EQ(map.weight_dtype, DType::kF16);
    EXPECT_EQ(spec.name, folder);
  }
}

}  // namespace
}  // namespace sluice
