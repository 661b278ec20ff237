// `sluice convert`, `prune` and `inspect` with formats other than dense.
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/store/manifest.h"
#include "tests/apps/run_command.h"
#include "tests/kernels/checkpoint_fixture.h"

namespace sluice::apps {
namespace {

using ::testing::HasSubstr;
using testing::ScratchFolder;
using testing::write_checkpoint;

constexpr const char* kFc1 = "decoder.layers.1.fc1.weight";
constexpr const char* kQ = "decoder.layers.0.self_attn.q_proj.weight";

StoredTensor stored(const std::filesystem::path& store, std::string_view name) {
  for (const StoredTensor& tensor : read_manifest(store).tensors) {
    if (tensor.spec.name == name) return tensor;
  }
  ADD_FAILURE() << name;
  return {};
}

double sparsity(const StoredTensor& tensor) {
  return static_cast<double>(tensor.stats.zeros) / static_cast<double>(tensor.spec.rows * tensor.spec.cols);
}

class FormatCommand : public ::testing::Test {
 protected:
  FormatCommand() { write_checkpoint(model_, {}); }

  Outcome convert(std::vector<std::string> flags, const std::string& command = "convert") const {
    flags.insert(flags.begin(), {command, model_, store_});
    return run(flags);
  }
  std::string refusal(const std::vector<std::string>& flags, const std::string& command = "convert") const {
    const Outcome outcome = convert(flags, command);
    EXPECT_EQ(outcome.status, exit_status(Code::kInvalidArgument));
    EXPECT_FALSE(is_store(store_));
    return outcome.err;
  }

  const ScratchFolder scratch_;
  const std::string model_ = scratch_ / "model", store_ = scratch_ / "store";
};

TEST_F(FormatCommand, ConvertsEveryMatrixOfTheLayersAndSaysWhatTheyTake) {
  const Outcome outcome = convert({"--format", "bitmap_int8", "--sparsity", "0.5", "--prune-per", "matrix"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  std::int64_t elements = 0, zeros = 0, bytes = 0;
  for (const StoredTensor& tensor : read_manifest(store_).tensors) {
    const bool is_matrix = !tensor.spec.is_vector && tensor.spec.name.starts_with("decoder.layers.");
    EXPECT_EQ(tensor.format.encoding, is_matrix ? Encoding::kBitmapInt8 : Encoding::kDense);
    if (!is_matrix) continue;
    EXPECT_NEAR(sparsity(tensor), 0.5, 0.01) << tensor.spec.name;
    elements += tensor.spec.rows * tensor.spec.cols;
    zeros += tensor.stats.zeros;
    bytes += tensor.bytes;
  }
  const auto count = static_cast<double>(elements);
  EXPECT_THAT(
      outcome.out,
      HasSubstr(fmt::format("matrices of the decoder layers: {:.1f} % zeros, {:.3f} bytes a weight\n",
                            100.0 * static_cast<double>(zeros) / count, static_cast<double>(bytes) / count)));
  const Outcome verified = run({"inspect", store_, "--verify"});
  EXPECT_EQ(verified.status, 0) << verified.err;
  EXPECT_THAT(verified.out, HasSubstr("every checksum agrees"));
}

TEST_F(FormatCommand, TakesRulesFromAFileAndFlagsWinOverIt) {
  testing::write_file(scratch_ / "rules.yaml", R"(format: int8
sparsity: 0.9
overrides:
  - layers: "1"
    tensors: fc1
    format: tiled_csl
    sparsity: 0.75
)");
  ASSERT_EQ(convert({"--formats", scratch_ / "rules.yaml"}).status, 0);
  EXPECT_EQ(stored(store_, kQ).format.encoding, Encoding::kInt8);
  EXPECT_NEAR(sparsity(stored(store_, kQ)), 0.9, 0.02);
  EXPECT_EQ(stored(store_, kFc1).format.encoding, Encoding::kTiledCsl);
  EXPECT_EQ(sparsity(stored(store_, kFc1)), 0.75);
  ASSERT_EQ(
      convert({"--formats", scratch_ / "rules.yaml", "--format", "bitmap", "--sparsity", "0.5", "--force"})
          .status,
      0);
  EXPECT_EQ(stored(store_, kQ).format.encoding, Encoding::kBitmap);
  EXPECT_EQ(sparsity(stored(store_, kQ)), 0.5);
  EXPECT_EQ(stored(store_, kFc1).format.encoding, Encoding::kTiledCsl) << "an override is more special";
}

TEST_F(FormatCommand, FakesMasksBySeed) {
  std::vector<std::int64_t> zeros;
  for (const char* seed : {"1", "1", "2"}) {
    ASSERT_EQ(convert({"--sparsity", "0.7", "--fake", "--fake-seed", seed, "--force"}).status, 0);
    zeros.push_back(stored(store_, kFc1).stats.zeros);
    EXPECT_NEAR(sparsity(stored(store_, kFc1)), 0.7, 0.05);
  }
  EXPECT_EQ(zeros[0], zeros[1]);
  EXPECT_NE(zeros[0], zeros[2]);
}

TEST_F(FormatCommand, PruneIsConvertWithASparsityThatMustBeGiven) {
  EXPECT_THAT(refusal({}, "prune"), HasSubstr("no sparsity is given"));
  ASSERT_EQ(convert({"--sparsity", "0.8"}, "prune").status, 0);
  EXPECT_EQ(stored(store_, kFc1).format.encoding, Encoding::kDense);
  EXPECT_NEAR(sparsity(stored(store_, kFc1)), 0.8, 0.02);
}

TEST_F(FormatCommand, NamesTheNearestKnownNameAndWhatIsOutOfRange) {
  EXPECT_THAT(refusal({"--format", "bitmpa"}),
              HasSubstr("--format bitmpa: format: 'bitmpa' is not one of the names; did you mean 'bitmap'?"));
  EXPECT_THAT(refusal({"--format", "int4g64"}), HasSubstr("did you mean 'int4_g64'?"));
  EXPECT_THAT(refusal({"--sparsity", "0.5", "--prune-per", "rwo"}),
              HasSubstr("--prune-per rwo: prune_per: 'rwo' is not one of the names; did you mean 'row'?"));
  for (const char* share : {"1.1", "-0.1", "half", "nan"}) {
    EXPECT_THAT(refusal({"--sparsity", share}), HasSubstr("number from 0 to 1")) << share;
  }
  EXPECT_THAT(refusal({"--fake", "--fake-seed", "-1", "--sparsity", "0.5"}), HasSubstr("fake_seed"));
  testing::write_file(scratch_ / "rules.yaml", "format: bitmap\noverides:\n  - layers: 0\n");
  EXPECT_THAT(refusal({"--formats", scratch_ / "rules.yaml"}),
              HasSubstr("overides: unknown key; did you mean 'overrides'?"));
  testing::write_file(scratch_ / "rules.yaml", "overrides:\n  - tensors: fc3\n    format: bitmap\n");
  EXPECT_THAT(refusal({"--formats", scratch_ / "rules.yaml"}), HasSubstr("write some of q_proj,k_proj"));
  EXPECT_EQ(convert({"--formats", scratch_ / "none.yaml"}).status, exit_status(Code::kNotFound));
}

TEST_F(FormatCommand, InspectShowsZerosBytesAndErrorOfEachTensor) {
  ASSERT_EQ(convert({"--format", "int4_sym_g64", "--sparsity", "0.75"}).status, 0);
  const StoredTensor tensor = stored(store_, kFc1);
  const double bytes_per_weight =
      static_cast<double>(tensor.bytes) / static_cast<double>(tensor.spec.rows * tensor.spec.cols);
  EXPECT_GT(tensor.stats.error, 0);

  const std::string text = run({"inspect", store_}).out;
  EXPECT_THAT(text, HasSubstr("offset   zeros  bytes/weight     error\n"));
  const std::size_t begin = text.find(kFc1);
  const std::string line = text.substr(begin, text.find('\n', begin) - begin);
  EXPECT_THAT(line, HasSubstr("int4_sym_g64_f16"));
  EXPECT_TRUE(
      line.ends_with(fmt::format("  75.0 %  {:>12.3f}  {:>8.2g}", bytes_per_weight, tensor.stats.error)))
      << line;

  const nlohmann::json document = nlohmann::json::parse(run({"inspect", store_, "--json"}).out);
  int found = 0;
  for (const nlohmann::json& entry : document.at("tensors")) {
    if (entry.at("name") != kFc1) continue;
    ++found;
    EXPECT_EQ(entry.at("format"), "int4_sym_g64_f16");
    EXPECT_EQ(entry.at("sparsity"), 0.75);
    EXPECT_EQ(entry.at("bytes_per_weight"), bytes_per_weight);
    EXPECT_EQ(entry.at("error"), tensor.stats.error);
  }
  EXPECT_EQ(found, 1);
  // A checkpoint has none of these columns.
  EXPECT_THAT(run({"inspect", model_}).out, ::testing::Not(HasSubstr("bytes/weight")));
}

TEST_F(FormatCommand, InspectVerifiesTheBytesOfEncodedTensors) {
  ASSERT_EQ(convert({"--format", "tiled_csl", "--sparsity", "0.75"}).status, 0);
  const StoredTensor tensor = stored(store_, kFc1);
  const auto file =
      std::filesystem::path(store_) / read_manifest(store_).files[static_cast<std::size_t>(tensor.file)];
  std::string bytes = testing::read_file(file);
  bytes[static_cast<std::size_t>(tensor.offset + tensor.bytes - 1)] ^= 1;  // in the padding of its table
  testing::write_file(file, bytes);
  const Outcome outcome = run({"inspect", store_, "--verify"});
  EXPECT_EQ(outcome.status, exit_status(Code::kCorrupt));
  EXPECT_THAT(outcome.err, HasSubstr(kFc1));
}

}  // namespace
}  // namespace sluice::apps
