// `sluice generate` through the program itself with weights that are not dense.
#include <gmock/gmock.h>

#include "core/error.h"
#include "core/store/manifest.h"
#include "tests/apps/program.h"
#include "tests/apps/temp_dir.h"
#include "tests/support/paths.h"

namespace sluice::apps {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

/// A copy of a trained checkpoint, beside which stores may be made.
class FormatGenerate : public ::testing::Test {
 protected:
  FormatGenerate() {
    std::filesystem::copy(testing::golden("tiny-opt-books-sparse80"), model_,
                          std::filesystem::copy_options::recursive);
  }
  ProgramResult generate(std::vector<std::string> flags) const {
    flags.insert(flags.begin(), {"generate", "The old man", "--max-new-tokens", "6", "--model", model_});
    return run_program(flags);
  }
  Encoding encoding_in(const std::string& store) const {
    for (const StoredTensor& tensor : read_manifest(model_ + "/" + store).tensors) {
      if (tensor.spec.name == "decoder.layers.2.fc2.weight") return tensor.format.encoding;
    }
    ADD_FAILURE() << store;
    return {};
  }

  const TempDir dir_;
  const std::string model_ = dir_ / "model";
};

TEST_F(FormatGenerate, LosslessFormatsContinueATextAsDenseWeightsDo) {
  const ProgramResult dense = generate({});
  ASSERT_EQ(dense.status, 0) << dense.err;
  EXPECT_THAT(dense.out, StartsWith("The old man"));
  for (const char* format : {"tiled_csl", "bank_csl", "pairs24", "bitmap"}) {
    const ProgramResult first = generate({"--format", format});
    EXPECT_EQ(first.status, 0) << first.err;
    EXPECT_EQ(first.out, dense.out) << format;
    EXPECT_THAT(first.err, HasSubstr("converting into"));
    const ProgramResult second = generate({"--format", format});
    EXPECT_EQ(second.out, dense.out);
    EXPECT_THAT(second.err, Not(HasSubstr("converting"))) << "once";
    EXPECT_EQ(encoding_name(encoding_in(fmt::format("sluice-store-{}", format))), format);
  }
}

TEST_F(FormatGenerate, CompressedWeightsKeepTheZerosOfASparseModel) {
  const ProgramResult result = generate({"--compress-weight"});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, StartsWith("The old man"));
  EXPECT_THAT(result.err, HasSubstr("are more than half zeros and become bitmap_int4"));
  EXPECT_EQ(encoding_in("sluice-store-int4"), Encoding::kBitmapInt4);
}

TEST_F(FormatGenerate, PrunesOnTheWayIntoTheStore) {
  const ProgramResult result = generate({"--format", "bitmap", "--sparsity", "0.9"});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(encoding_in("sluice-store-bitmap-s0.9"), Encoding::kBitmap);
}

TEST_F(FormatGenerate, RefusesWhatItCannotMakeAndSaysWhatToDo) {
  struct Case {
    std::vector<std::string> flags;
    const char* message;
  };
  for (const Case& c : std::vector<Case>{
           {{"--format", "bitmpa"}, "did you mean 'bitmap'"},
           {{"--sparsity", "1.5"}, "--sparsity 1.5: is no share of zeros; give a number from 0 to 1"},
           {{"--sparsity", "nan"}, "give a number from 0 to 1"},
           {{"--sparsity", "-0.1"}, "give a number from 0 to 1"}}) {
    const ProgramResult result = generate(c.flags);
    EXPECT_EQ(result.status, exit_status(Code::kInvalidArgument));
    EXPECT_THAT(result.err, HasSubstr(c.message));
    EXPECT_EQ(result.out, "");
  }
  for (const auto& entry : std::filesystem::directory_iterator(model_)) {
    EXPECT_THAT(entry.path().filename().string(), Not(HasSubstr("store")));
  }
  // A store has its formats already.
  ASSERT_EQ(generate({}).status, 0);
  const ProgramResult fixed = run_program(
      {"generate", "x", "--model", model_ + "/sluice-store", "--format", "bitmap", "--max-new-tokens", "1"});
  EXPECT_EQ(fixed.status, exit_status(Code::kInvalidArgument));
  EXPECT_THAT(fixed.err, HasSubstr("is a model store, whose formats are fixed; leave --format"));
}

TEST(RandomFormats, RunTheSyntheticBenchmark) {
  for (const std::vector<std::string>& flags :
       std::vector<std::vector<std::string>>{{"--format", "int4_g64", "--sparsity", "0.5"},
                                             {"--format", "bitmap", "--sparsity", "0.8"},
                                             {"--compress-weight"}}) {
    std::vector<std::string> args = {"generate", "-q",        "--model", "random:opt-125m", "--prompt-len",
                                     "4",        "--gen-len", "2",       "--num-prompts",   "1"};
    args.insert(args.end(), flags.begin(), flags.end());
    const ProgramResult result = run_program(args);
    EXPECT_EQ(result.status, 0) << result.err;
    EXPECT_THAT(result.out, HasSubstr("num prompts: 1  prompt len: 4  gen len: 2"));
  }
  const ProgramResult refused =
      run_program({"generate", "-q", "--model", "random:opt-125m", "--prompt-len", "4", "--sparsity", "2"});
  EXPECT_EQ(refused.status, exit_status(Code::kInvalidArgument));
}

}  // namespace
}  // namespace sluice::apps
