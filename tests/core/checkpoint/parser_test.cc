// Every parser of a checkpoint, on the inputs of tests/fakes/checkpoint_cases.h: what it accepts, and that
// each error has its code and says where.
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/checkpoint/npy.h"
#include "core/checkpoint/safetensors.h"
#include "core/checkpoint/shard_index.h"
#include "core/checkpoint/torch_zip.h"
#include "core/model/hf_config.h"
#include "tests/fakes/checkpoint_cases.h"
#include "tests/support/paths.h"

namespace sluice {
namespace {

using testing::ParserCase;

constexpr const char* kFileName = "folder/file.of.test";

struct Parser {
  friend void PrintTo(const Parser& parser, std::ostream* out) { *out << parser.name; }
  const char* name;
  const char* seeds;  ///< folder under tests/fuzz/seeds
  std::vector<ParserCase> (*cases)();
  std::function<void(const std::string& input)> parse;
};

void parse_with(std::vector<TensorRecord> (*read_header)(ByteSource&), const std::string& input) {
  MemorySource source(std::as_bytes(std::span(input)), kFileName);
  (void)read_header(source);
}

const std::vector<Parser>& parsers() {
  static const std::vector<Parser> all = {
      {"safetensors", "safetensors", testing::safetensors_cases,
       [](const std::string& input) { parse_with(read_safetensors_header, input); }},
      {"torch_zip", "torch_zip/zip", testing::torch_zip_cases,
       [](const std::string& input) { parse_with(read_torch_header, input); }},
      {"torch_pickle", "torch_zip/pickle", testing::pickle_cases,
       [](const std::string& input) {
         MemorySource source(std::as_bytes(std::span(input)), kFileName);
         (void)read_state_dict(source, 0, source.size(), [](const std::string&) { return ZipData{0, 64}; });
       }},
      {"npy", "npy", testing::npy_cases,
       [](const std::string& input) {
         MemorySource source(std::as_bytes(std::span(input)), kFileName);
         (void)read_npy_header(source, "weight");
       }},
      {"config_json", "config_json/config", testing::hf_config_cases,
       [](const std::string& input) { (void)parse_hf_config(input, kFileName); }},
      {"shard_index", "config_json/index", testing::shard_index_cases,
       [](const std::string& input) { (void)parse_shard_index(input, kFileName); }},
  };
  return all;
}

class CheckpointParser : public ::testing::TestWithParam<Parser> {};

TEST_P(CheckpointParser, AcceptsOrSaysWhatIsWrongAndWhere) {
  for (const ParserCase& c : GetParam().cases()) {
    SCOPED_TRACE(c.name);
    try {
      GetParam().parse(c.input);
      EXPECT_EQ(c.code, Code::kOk) << "accepted; expected: " << c.message;
    } catch (const Error& e) {
      EXPECT_EQ(code_name(e.code()), code_name(c.code)) << e.what();
      EXPECT_THAT(e.what(), ::testing::HasSubstr(kFileName));
      EXPECT_THAT(e.what(), ::testing::HasSubstr(c.message));
      EXPECT_FALSE(e.fix().empty()) << e.what();
    }
  }
}

TEST_P(CheckpointParser, SurvivesEveryTruncationOfItsInputs) {
  for (const ParserCase& c : GetParam().cases()) {
    if (c.input.size() > 4096) continue;
    for (std::size_t length = 0; length < c.input.size(); ++length) {
      try {
        GetParam().parse(c.input.substr(0, length));
      } catch (const Error&) {  // any other exception fails the test
      }
    }
  }
}

// The fuzz targets start from the same inputs, so their seeds reach every error above.
TEST_P(CheckpointParser, HasItsInputsAsFuzzSeeds) {
  const std::filesystem::path folder = testing::test_dir() / "fuzz/seeds" / GetParam().seeds;
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is not here (an installed copy?)";
  std::map<std::string, std::string> on_disk;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream in(entry.path(), std::ios::binary);
    on_disk[entry.path().filename()] = std::string(std::istreambuf_iterator<char>(in), {});
  }
  std::map<std::string, std::string> expected;
  for (const ParserCase& c : GetParam().cases()) {
    EXPECT_TRUE(expected.emplace(c.name, c.input).second) << c.name << " is there twice";
  }
  EXPECT_TRUE(on_disk == expected) << "run write_checkpoint_seeds " << testing::test_dir() / "fuzz/seeds";
}

INSTANTIATE_TEST_SUITE_P(All, CheckpointParser, ::testing::ValuesIn(parsers()),
                         [](const auto& param) { return std::string(param.param.name); });

}  // namespace
}  // namespace sluice
