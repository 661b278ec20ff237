#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "apps/convert_progress.h"
#include "core/store/manifest.h"
#include "tests/apps/run_command.h"
#include "tests/kernels/checkpoint_fixture.h"

namespace sluice::apps {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::ScratchFolder;
using testing::write_checkpoint;

TEST(ConvertCommand, WritesAStoreAndRefusesToWriteOverIt) {
  ScratchFolder scratch;
  write_checkpoint(scratch / "model", {});
  const std::string model = scratch / "model", store = scratch / "store";
  const Outcome first = run({"convert", model, store});
  EXPECT_EQ(first.status, 0) << first.err;
  EXPECT_THAT(first.out,
              AllOf(HasSubstr("38 tensors"), HasSubstr("(f16), with tokenizer"), HasSubstr("GB/s")));
  EXPECT_EQ(read_manifest(store).tensors.size(), 38U);
  const Outcome again = run({"convert", model, store});
  EXPECT_EQ(again.status, exit_status(Code::kInvalidArgument));
  EXPECT_THAT(again.err, HasSubstr("--force"));
  EXPECT_EQ(run({"convert", model, store, "--force"}).status, 0);
}

TEST(ConvertCommand, TakesConfigAndTokenizerAndNamesWhatIsMissing) {
  ScratchFolder scratch;
  testing::TinyCheckpoint checkpoint;
  checkpoint.with_config = checkpoint.with_tokenizer = false;
  write_checkpoint(scratch / "model", checkpoint);
  testing::write_file(scratch / "c.json", testing::config_json(checkpoint.spec).dump());
  testing::write_file(scratch / "vocab.json", "{}");
  const std::string model = scratch / "model", store = scratch / "store";
  const Outcome missing = run({"convert", model, store});
  EXPECT_EQ(missing.status, exit_status(Code::kNotFound));
  EXPECT_THAT(missing.err, HasSubstr("--config"));
  const Outcome done =
      run({"convert", model, store, "--config", scratch / "c.json", "--tokenizer", scratch.path()});
  EXPECT_EQ(done.status, 0) << done.err;
  EXPECT_EQ(read_manifest(store).tokenizer_files, std::vector<std::string>{"vocab.json"});
  EXPECT_EQ(run({"convert", model}).status, exit_status(Code::kInvalidArgument));
}

TEST(InspectCommand, ShowsAStoreAndACheckpoint) {
  ScratchFolder scratch;
  write_checkpoint(scratch / "model", {});
  const std::string model = scratch / "model", store = scratch / "store";
  ASSERT_EQ(run({"convert", model, store}).status, 0);
  const Outcome text = run({"inspect", store, "--verify"});
  EXPECT_EQ(text.status, 0) << text.err;
  for (const char* part :
       {"model tiny: 2 layers, hidden 48", "decoder.layers.1.fc1.weight", "100 x 48", "dense_f16",
        "layer-0001.bin", "vocab.json, merges.txt", "38 tensors", "every checksum agrees"}) {
    EXPECT_THAT(text.out, HasSubstr(part));
  }
  const Outcome checkpoint = run({"inspect", model});
  EXPECT_EQ(checkpoint.status, 0) << checkpoint.err;
  for (const char* part :
       {"checkpoint ", "model.decoder.layers.1.fc1.weight", "100 x 48", "f16", "model.safetensors"}) {
    EXPECT_THAT(checkpoint.out, HasSubstr(part));
  }
  const Outcome single = run({"inspect", model + "/model.safetensors", "--json"});
  EXPECT_EQ(nlohmann::json::parse(single.out)["spec"]["num_layers"], 2)
      << "the config beside the file is used";
}

TEST(InspectCommand, PrintsJson) {
  ScratchFolder scratch;
  write_checkpoint(scratch / "model", {});
  const std::string store = scratch / "store";
  ASSERT_EQ(run({"convert", scratch / "model", store}).status, 0);
  const nlohmann::json document = nlohmann::json::parse(run({"inspect", store, "--json", "--verify"}).out);
  EXPECT_EQ(document["kind"], "store");
  EXPECT_EQ(document["verified"], true);
  EXPECT_EQ(document["spec"]["hidden_dim"], 48);
  EXPECT_EQ(document["tensors"].size(), 38U);
  EXPECT_EQ(document["tensors"][0]["name"], "decoder.embed_positions.weight");
  EXPECT_EQ(document["tensors"][0]["shape"], (std::vector<int>{66, 48}));
  EXPECT_EQ(document["total_bytes"], 2 * num_parameters(testing::tiny_spec()));
}

TEST(InspectCommand, FailsOnEveryChangedTensorWithFileAndOffset) {
  ScratchFolder scratch;
  write_checkpoint(scratch / "model", {});
  const std::string store = scratch / "store";
  ASSERT_EQ(run({"convert", scratch / "model", store}).status, 0);
  const Manifest manifest = read_manifest(store);
  for (const std::size_t i : {3U, 20U}) {
    const StoredTensor& tensor = manifest.tensors[i];
    const auto file = std::filesystem::path(store) / manifest.files[static_cast<std::size_t>(tensor.file)];
    std::string bytes = testing::read_file(file);
    bytes[static_cast<std::size_t>(tensor.offset)] ^= 4;
    testing::write_file(file, bytes);
  }
  EXPECT_EQ(run({"inspect", store}).status, 0) << "without --verify only sizes are looked at";
  const Outcome outcome = run({"inspect", store, "--verify"});
  EXPECT_EQ(outcome.status, exit_status(Code::kCorrupt));
  for (const std::size_t i : {3U, 20U}) {
    const StoredTensor& tensor = manifest.tensors[i];
    EXPECT_THAT(outcome.err, HasSubstr(fmt::format("{}: offset {}: tensor {}",
                                                   manifest.files[static_cast<std::size_t>(tensor.file)],
                                                   tensor.offset, tensor.spec.name)));
  }
  EXPECT_THAT(outcome.err, HasSubstr("2 of 38 tensors differ"));
}

TEST(InspectCommand, SaysWhatItCannotDo) {
  ScratchFolder scratch;
  write_checkpoint(scratch / "model", {});
  EXPECT_EQ(run({"inspect", scratch / "nothing"}).status, exit_status(Code::kNotFound));
  const Outcome verify = run({"inspect", scratch / "model", "--verify"});
  EXPECT_EQ(verify.status, exit_status(Code::kInvalidArgument));
  EXPECT_THAT(verify.err, HasSubstr("no checksums"));
}

TEST(ByteProgress, SaysRateAndTimeLeft) {
  EXPECT_EQ(byte_progress_text("convert", std::int64_t{1} << 30, std::int64_t{4} << 30, 1e9),
            "convert: 1.00 GiB of 4.00 GiB (25 %), 1.00 GB/s, 3 s left");
  EXPECT_EQ(byte_progress_text("convert", 0, std::int64_t{4} << 30, 0), "convert: 0 B of 4.00 GiB (0 %)");
  EXPECT_THAT(byte_progress_text("x", 0, 65'000'000'000, 1e9), HasSubstr("1 min 5 s left"));
  EXPECT_THAT(byte_progress_text("x", 0, 7'260'000'000'000, 1e9), HasSubstr("2 h 1 min left"));
  EXPECT_THAT(byte_progress_text("x", 0, 0, 0), HasSubstr("(100 %)"));
}

}  // namespace
}  // namespace sluice::apps
