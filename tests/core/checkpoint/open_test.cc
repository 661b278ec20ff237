// Which files of a folder make a checkpoint, and what is said when some are missing or do not fit together.
#include <filesystem>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/checkpoint/reader.h"
#include "tests/fakes/checkpoint_bytes.h"
#include "tests/fakes/temp_folder.h"

namespace sluice {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;
using testing::PickleBytes;
using testing::TempFolder;

/// A safetensors file of f16 [2] tensors with these names; tensor i holds the bytes of 'a' + i.
std::string safetensors_of(const std::vector<std::string>& names) {
  std::string header;
  std::string data;
  for (const std::string& name : names) {
    header += fmt::format(R"({}"{}":{{"dtype":"F16","shape":[2],"data_offsets":[{},{}]}})",
                          header.empty() ? "" : ",", name, data.size(), data.size() + 4);
    data.append(4, static_cast<char>('a' + data.size() / 4));
  }
  return testing::safetensors_bytes(fmt::format("{{{}}}", header), data);
}

/// A torch file of f32 [1, 2] tensors with these names, tensor i in storage i.
std::string torch_of(const std::vector<std::string>& names) {
  PickleBytes pickle;
  pickle.proto().op("}(");
  std::vector<std::string> storages;
  for (const std::string& name : names) {
    pickle.text(name).tensor("FloatStorage", std::to_string(storages.size()), 2, 0, {1, 2}, {2, 1});
    storages.emplace_back(8, static_cast<char>('A' + storages.size()));
  }
  return testing::torch_bytes(pickle.op("u").stop(), storages);
}

std::string npy_of(std::string_view bytes) {
  return testing::npy_bytes(
      fmt::format("{{'descr': '|u1', 'fortran_order': False, 'shape': ({},), }}", bytes.size()), bytes);
}

std::string index_of(const std::vector<std::pair<std::string, std::string>>& file_of_tensor) {
  std::string map;
  for (const auto& [tensor, file] : file_of_tensor)
    map += fmt::format(R"({}"{}": "{}")", map.empty() ? "" : ", ", tensor, file);
  return fmt::format(R"({{"metadata": {{}}, "weight_map": {{{}}}}})", map);
}

std::vector<std::string> names_of(const CheckpointReader& reader) {
  std::vector<std::string> names;
  for (const CheckpointTensor& tensor : reader.tensors()) names.push_back(tensor.name);
  return names;
}

std::string bytes_of(CheckpointReader& reader, std::size_t index) {
  std::string bytes(static_cast<std::size_t>(reader.tensors()[index].num_bytes), '?');
  reader.read(index, 0, reader.tensors()[index].num_elements(), std::as_writable_bytes(std::span(bytes)));
  return bytes;
}

Error refusal_of(const std::filesystem::path& path) {
  return error_of([&] { (void)open_checkpoint(path); });
}

void expect_refused(const std::filesystem::path& path, Code code,
                    const ::testing::Matcher<std::string>& message) {
  const Error e = refusal_of(path);
  EXPECT_EQ(code_name(e.code()), code_name(code)) << e.what();
  EXPECT_THAT(std::string(e.what()), message);
  EXPECT_THAT(e.fix(), ::testing::Not(::testing::IsEmpty()));
}

TEST(OpenCheckpoint, PrefersSafetensorsToTorchAndTorchToNpy) {
  const TempFolder folder;
  folder.write("decoder.fc.weight", npy_of("xyz"));
  EXPECT_THAT(names_of(*open_checkpoint(folder.path())), ElementsAre("decoder.fc.weight"));
  folder.write("pytorch_model.bin", torch_of({"t"}));
  EXPECT_THAT(names_of(*open_checkpoint(folder.path())), ElementsAre("t"));
  folder.write("model.safetensors", safetensors_of({"s"}));
  EXPECT_THAT(names_of(*open_checkpoint(folder.path())), ElementsAre("s"));
}

TEST(OpenCheckpoint, PrefersAnIndexToASingleFile) {
  const TempFolder folder;
  folder.write("model.safetensors", safetensors_of({"old"}));
  folder.write("1.safetensors", safetensors_of({"a", "b"}));
  folder.write("model.safetensors.index.json", index_of({{"a", "1.safetensors"}, {"b", "1.safetensors"}}));
  EXPECT_THAT(names_of(*open_checkpoint(folder.path())), ElementsAre("a", "b"));
}

TEST(OpenCheckpoint, TakesOneFileOfAnyNameAndLeavesTrainingState) {
  const TempFolder folder;
  folder.write("training_args.bin", "junk");
  folder.write("optimizer.pt", "junk");
  folder.write("consolidated.00.pth", torch_of({"t"}));
  const auto reader = open_checkpoint(folder.path());
  EXPECT_THAT(names_of(*reader), ElementsAre("t"));
  EXPECT_EQ(bytes_of(*reader, 0), "AAAAAAAA");
  EXPECT_EQ(reader->tensors()[0].shape, (std::vector<std::int64_t>{1, 2}));
  EXPECT_EQ(reader->tensors()[0].dtype, DType::kF32);
  folder.write("adapter.pt", torch_of({"u"}));
  expect_refused(folder.path(), Code::kNotFound,
                 HasSubstr("2 .bin files and no pytorch_model.bin.index.json"));
}

TEST(OpenCheckpoint, OpensEachContainerByItsFile) {
  const TempFolder folder;
  EXPECT_THAT(names_of(*open_checkpoint(folder.write("s", safetensors_of({"s"})))), ElementsAre("s"));
  EXPECT_THAT(names_of(*open_checkpoint(folder.write("t", torch_of({"t"})))), ElementsAre("t"));
  EXPECT_THAT(names_of(*open_checkpoint(folder.write("decoder.n.weight", npy_of("1")))),
              ElementsAre("decoder.n.weight"));
  EXPECT_THAT(names_of(*open_checkpoint(folder.write("n.weight.npy", npy_of("1")))), ElementsAre("n.weight"));
  expect_refused(folder.write("x.bin", "no torch"), Code::kCorrupt,
                 HasSubstr("x.bin: offset 0: no file of torch.save"));
}

TEST(OpenCheckpoint, ReadsShardsOfBothKinds) {
  const TempFolder folder;
  folder.write("1.bin", torch_of({"a", "b"}));
  folder.write("2.bin", torch_of({"c"}));
  folder.write("pytorch_model.bin.index.json", index_of({{"a", "1.bin"}, {"b", "1.bin"}, {"c", "2.bin"}}));
  const auto reader = open_checkpoint(folder.path());
  ASSERT_THAT(names_of(*reader), ElementsAre("a", "b", "c"));
  EXPECT_EQ(bytes_of(*reader, 2), "AAAAAAAA");
  EXPECT_EQ(bytes_of(*reader, 1), "BBBBBBBB");  // back in the first file
  EXPECT_EQ(reader->tensors()[2].file.filename(), "2.bin");
}

TEST(OpenCheckpoint, TakesOnlyWhatTheIndexPlacesInAFile) {
  const TempFolder folder;
  folder.write("1.safetensors", safetensors_of({"a", "stray", "b"}));
  folder.write("2.safetensors", safetensors_of({"a", "c"}));
  folder.write("model.safetensors.index.json",
               index_of({{"a", "1.safetensors"}, {"b", "1.safetensors"}, {"c", "2.safetensors"}}));
  EXPECT_THAT(names_of(*open_checkpoint(folder.path())), ElementsAre("a", "b", "c"));
}

TEST(OpenCheckpoint, ListsMissingShardsWithTheirTensors) {
  const TempFolder folder;
  folder.write("1.bin", torch_of({"a"}));
  folder.write(
      "pytorch_model.bin.index.json",
      index_of(
          {{"a", "1.bin"}, {"b", "2.bin"}, {"c", "2.bin"}, {"d", "2.bin"}, {"e", "2.bin"}, {"f", "3.bin"}}));
  expect_refused(
      folder.path(), Code::kNotFound,
      AllOf(HasSubstr("shards are missing: 2.bin (4 tensors: b, c, d and 1 more); 3.bin (1 tensors: f)"),
            HasSubstr("download the missing files")));
}

TEST(OpenCheckpoint, NamesATruncatedShardAndItsTensors) {
  const TempFolder folder;
  const std::string whole = safetensors_of({"b", "c"});
  folder.write("1.safetensors", safetensors_of({"a"}));
  folder.write("2.safetensors", whole.substr(0, whole.size() - 3));
  folder.write("model.safetensors.index.json",
               index_of({{"a", "1.safetensors"}, {"b", "2.safetensors"}, {"c", "2.safetensors"}}));
  expect_refused(folder.path(), Code::kCorrupt,
                 AllOf(HasSubstr("2.safetensors: offset"), HasSubstr("tensor 'c' needs it to reach"),
                       HasSubstr("3 bytes are missing"), HasSubstr("download it again"),
                       HasSubstr("(this shard holds 2 tensors: b, c)")));
}

TEST(OpenCheckpoint, NamesTensorsThatAreNotInTheirShard) {
  const TempFolder folder;
  folder.write("1.safetensors", safetensors_of({"a"}));
  folder.write("model.safetensors.index.json", index_of({{"a", "1.safetensors"}, {"b", "1.safetensors"}}));
  expect_refused(folder.path(), Code::kCorrupt,
                 HasSubstr("1.safetensors: tensors that the index places here are missing: b"));
}

TEST(OpenCheckpoint, RefusesAnIndexThatIsTooLarge) {
  const TempFolder folder;
  folder.write("model.safetensors.index.json", std::string((8 << 20) + 1, ' '));
  expect_refused(folder.path(), Code::kCorrupt,
                 HasSubstr("8388609 bytes, the limit for an index is 8388608"));
}

TEST(OpenCheckpoint, KnowsGitLfsPointers) {
  const TempFolder folder;
  folder.write("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n");
  expect_refused(folder.path(), Code::kNotFound,
                 AllOf(HasSubstr("a Git LFS pointer"), HasSubstr("git lfs pull")));
}

TEST(OpenCheckpoint, KnowsFasterTransformerFolders) {
  const TempFolder folder;
  folder.write("config.ini", "[gpt]\n");
  folder.write("model.wte.bin", "x");
  folder.write("model.wpe.bin", "x");
  expect_refused(folder.path(), Code::kUnsupported, HasSubstr("a FasterTransformer folder"));
}

TEST(OpenCheckpoint, SaysWhatItLookedFor) {
  const TempFolder folder;
  folder.write("readme.txt", "hello");
  expect_refused(folder.path(), Code::kNotFound,
                 AllOf(HasSubstr("no checkpoint in this folder"), HasSubstr("looked for model.safetensors")));
  expect_refused(folder.path() / "none", Code::kNotFound, HasSubstr("no such file or folder"));
  folder.write("1.safetensors", safetensors_of({"a"}));
  folder.write("2.safetensors", safetensors_of({"b"}));
  expect_refused(folder.path(), Code::kNotFound,
                 HasSubstr("2 .safetensors files and no model.safetensors.index.json"));
}

TEST(OpenCheckpoint, ReadsAFolderOfArrays) {
  const TempFolder folder;
  folder.write("config.json", "{}");
  folder.write("decoder.layers.0.fc1.weight", npy_of("first"));
  folder.write("lm_head.weight", npy_of("head"));
  folder.write("other.npy", npy_of("other"));
  const auto reader = open_checkpoint(folder.path());
  ASSERT_THAT(names_of(*reader), ElementsAre("decoder.layers.0.fc1.weight", "lm_head.weight", "other"));
  EXPECT_EQ(bytes_of(*reader, 0), "first");
  EXPECT_EQ(bytes_of(*reader, 2), "other");
}

TEST(OpenCheckpoint, NamesAnArrayThatWasNotFinished) {
  const TempFolder folder;
  folder.write("decoder.layers.0.fc1.weight", npy_of("first"));
  folder.write("decoder.layers.0.fc2.weight", "");
  expect_refused(folder.path(), Code::kCorrupt, HasSubstr("fc2.weight: offset 0: no .npy file"));
}

TEST(OpenCheckpoint, RefusesATensorThatIsThereTwice) {
  const TempFolder folder;
  folder.write("decoder.a", npy_of("1"));
  folder.write("decoder.a.npy", npy_of("2"));
  expect_refused(folder.path(), Code::kCorrupt,
                 AllOf(HasSubstr("tensor 'decoder.a' is also in"), HasSubstr("keep one")));
  const auto both = folder.write("pytorch_model.bin", torch_of({"t", "t"}));
  expect_refused(both, Code::kCorrupt, HasSubstr("tensor 't' is also in"));
}

TEST(CheckpointReader, RefusesAFileThatChangedSinceItWasOpened) {
  const TempFolder folder;
  const auto reader = open_checkpoint(folder.write("model.safetensors", safetensors_of({"a"})));
  folder.write("model.safetensors", safetensors_of({"a", "b"}));
  const Error e = error_of([&] { (void)bytes_of(*reader, 0); });
  EXPECT_EQ(e.code(), Code::kCorrupt);
  EXPECT_THAT(e.what(), HasSubstr("when it was opened"));
  EXPECT_EQ(error_of([&] { reader->read(1, 0, 0, {}); }).code(), Code::kInternal);
}

TEST(CheckpointReader, SurvivesTheRemovalOfItsFile) {
  const TempFolder folder;
  const auto reader = open_checkpoint(folder.write("model.safetensors", safetensors_of({"a"})));
  std::filesystem::remove(folder.path() / "model.safetensors");
  EXPECT_EQ(error_of([&] { (void)bytes_of(*reader, 0); }).code(), Code::kNotFound);
}

}  // namespace
}  // namespace sluice
