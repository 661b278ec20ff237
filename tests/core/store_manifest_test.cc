#include <functional>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/store/checksum.h"
#include "core/store/manifest.h"
#include "core/store/read_tensor.h"
#include "core/units.h"
#include "tests/core/store_fixture.h"
#include "tests/support/paths.h"

namespace sluice {
namespace {

using nlohmann::json;
using testing::error_of;
using ::testing::HasSubstr;
using testing::plan_of;
using testing::ScratchFolder;
using testing::tiny_spec;
using testing::write_store;

const Manifest& tiny_manifest() {
  static const Manifest manifest = [] {
    ScratchFolder scratch;
    return write_store(scratch / "store", plan_of(tiny_spec()));
  }();
  return manifest;
}

TEST(Manifest, ReadsBackWhatWasWritten) {
  ModelSpec spec = tiny_spec();  // every field away from its default
  spec.name = "a \"name\"\n";
  spec.position_offset = 3;
  spec.activation = Activation::kGeluTanh;
  spec.has_bias = spec.norm_affine = spec.pre_norm = spec.final_norm = spec.tied_embedding = false;
  spec.norm_eps = 1.5e-6F;
  spec.bos_id = 7;
  spec.eos_id = -1;
  spec.pad_id = 9;
  spec.weight_dtype = DType::kBF16;
  ScratchFolder scratch;
  StorePlan plan = plan_of(spec, "line\nline");
  plan.formats[3] = WeightFormat::kDenseBF16;
  const Manifest written = write_store(scratch / "store", plan);
  EXPECT_EQ(read_manifest(scratch / "store"), written);
  EXPECT_EQ(written.spec, spec);
  EXPECT_EQ(parse_manifest(manifest_to_json(written), "m"), written);
}

TEST(Manifest, PutsOneUnitInOneAlignedPaddedFile) {
  ScratchFolder scratch;
  const Manifest manifest = write_store(scratch / "store", plan_of(tiny_spec()));
  ASSERT_EQ(manifest.files.size(), 4U);
  for (std::size_t i = 0; i < manifest.tensors.size(); ++i) {
    const StoredTensor& tensor = manifest.tensors[i];
    EXPECT_EQ(tensor.offset % kPageAlign, 0);
    const std::string file = testing::read_file(scratch.path() / "store" / manifest.files[tensor.file]);
    const auto end = static_cast<std::size_t>(tensor.offset + tensor.bytes);
    const auto padded = static_cast<std::size_t>(align_up(tensor.offset + tensor.bytes, kPageAlign));
    ASSERT_LE(padded, file.size());
    EXPECT_EQ(file.substr(end, padded - end), std::string(padded - end, '\0')) << tensor.spec.name;
    const auto bytes = read_stored_tensor(scratch / "store", manifest, tensor);
    EXPECT_EQ(bytes, testing::payload_of(tensor, i)) << tensor.spec.name;
  }
}

struct Violation {
  std::string field;  ///< named by the message
  std::function<void(json&)> inject;
  Code code = Code::kCorrupt;
};

class ManifestViolation : public ::testing::TestWithParam<Violation> {};

TEST_P(ManifestViolation, IsNamedWithFileAndField) {
  json document = json::parse(manifest_to_json(tiny_manifest()));
  GetParam().inject(document);
  const Error error = error_of([&] { parse_manifest(document.dump(), "folder/manifest.json"); });
  EXPECT_EQ(error.code(), GetParam().code) << error.what();
  EXPECT_THAT(error.what(), HasSubstr("folder/manifest.json: " + GetParam().field + ":"));
  EXPECT_THAT(error.fix(), HasSubstr("sluice convert"));
}

std::vector<Violation> violations() {
  const auto set = [](const std::string& pointer, json value) {
    return [=](json& document) { document[json::json_pointer(pointer)] = value; };
  };
  const auto erase = [](const std::string& parent, const std::string& key) {
    return [=](json& document) { document[json::json_pointer(parent)].erase(key); };
  };
  std::vector<Violation> list = {
      {"format_version", erase("", "format_version")},
      {"format_version", set("/format_version", "1")},
      {"format_version", set("/format_version", 1), Code::kUnsupported},
      {"comment", set("/comment", "x")},
      {"spec", erase("", "spec")},
      {"spec", set("/spec", 3)},
      {"spec.family", set("/spec/family", "bert")},
      {"spec.name", set("/spec/name", 1)},
      {"spec.num_layers", set("/spec/num_layers", 0)},
      {"spec.num_layers", set("/spec/num_layers", 1e18)},
      {"spec.num_layers", set("/spec/num_layers", std::uint64_t{1} << 63)},
      {"spec.hidden_dim", set("/spec/hidden_dim", -5)},
      {"spec.vocab_size", set("/spec/vocab_size", std::int64_t{1} << 40)},
      {"spec.position_offset", set("/spec/position_offset", -1)},
      {"spec.activation", set("/spec/activation", "tanh")},
      {"spec.has_bias", set("/spec/has_bias", 1)},
      {"spec.norm_eps", set("/spec/norm_eps", "small")},
      {"spec.norm_eps", set("/spec/norm_eps", -1.0)},
      {"spec.eos_id", set("/spec/eos_id", -2)},
      {"spec.weight_dtype", set("/spec/weight_dtype", "f12")},
      {"spec.extra", set("/spec/extra", 1)},
      {"spec", set("/spec/head_dim", 12)},         // not a multiple of 8
      {"spec", set("/spec/weight_dtype", "f32")},  // known, but no stored format
      {"source", erase("", "source")},
      {"source", set("/source", json::array())},
      {"tokenizer_files", set("/tokenizer_files", "vocab.json")},
      {"tokenizer_files[0]", set("/tokenizer_files", json::array({1}))},
      {"tokenizer_files[0]", set("/tokenizer_files", json::array({"../vocab.json"}))},
      {"tokenizer_files[0]", set("/tokenizer_files", json::array({"manifest.json"}))},
      {"tokenizer_files[1]", set("/tokenizer_files", json::array({"a", "a"}))},
      {"files[0]", set("/files/0", "")},
      {"files[0]", set("/files/0", "..")},
      {"files[0]", set("/files/0", "a/b")},
      {"files[0]", set("/files/0", std::string("a\0b", 3))},
      {"files[0]", set("/files/0", std::string(256, 'x'))},
      {"files[1]", set("/files/1", "input.bin")},
      {"files", set("/files", json::array({"input.bin"}))},
      {"tensors", erase("", "tensors")},
      {"tensors", set("/tensors", json::object())},
      {"tensors", set("/tensors", json::array())},
      {"tensors", [](json& document) { document["tensors"].erase(std::size_t{5}); }},
      {"tensors", [](json& document) { document["tensors"].push_back(document["tensors"][0]); }},
      {"tensors[2]", set("/tensors/2", 5)},
      {"tensors[2].name", set("/tensors/2/name", "decoder.unknown")},
      {"tensors[2].name", erase("/tensors/2", "name")},
      {"tensors[2].shape", set("/tensors/2/shape", 5)},
      {"tensors[2].shape", set("/tensors/2/shape", json::array({1, 2, 3}))},
      {"tensors[2].shape[0]", set("/tensors/2/shape", json::array({"a"}))},
      {"tensors[2].format", set("/tensors/2/format", "dense_f12")},
      {"tensors[2].file", set("/tensors/2/file", 4)},
      {"tensors[2].file", set("/tensors/2/file", -1)},
      {"tensors[2].file", set("/tensors/2/file", 2)},  // exists, but is another unit's
      {"tensors[2].offset", set("/tensors/2/offset", 4095)},
      {"tensors[2].offset", set("/tensors/2/offset", -4096)},
      {"tensors[3].offset", set("/tensors/3/offset", 0)},  // overlaps tensors[2]
      {"tensors[2].bytes", set("/tensors/2/bytes", 4096)},
      {"tensors[2].bytes", set("/tensors/2/bytes", "many")},
      {"tensors[2].checksum", set("/tensors/2/checksum", "123")},
      {"tensors[2].checksum", set("/tensors/2/checksum", "00000000000000zz")},
      {"tensors[2].checksum", set("/tensors/2/checksum", 5)},
      {"tensors[2].note", set("/tensors/2/note", 5)},
  };
  for (const char* key : {"ffn_dim", "num_heads", "num_kv_heads", "head_dim", "embed_dim", "max_positions",
                          "pad_id", "bos_id", "norm_affine", "pre_norm", "final_norm", "tied_embedding"}) {
    list.push_back({std::string("spec.") + key, erase("/spec", key)});
  }
  for (const char* key : {"shape", "format", "file", "offset", "bytes", "checksum"}) {
    list.push_back({std::string("tensors[1].") + key, erase("/tensors/1", key)});
  }
  return list;
}

INSTANTIATE_TEST_SUITE_P(Each, ManifestViolation, ::testing::ValuesIn(violations()));

TEST(Manifest, RefusesTextThatIsNoJson) {
  const std::string good = manifest_to_json(tiny_manifest());
  for (const std::string& bad :
       {std::string(), good.substr(0, good.size() / 2), "[1]" + good, std::string("[]"), std::string("7")}) {
    const Error error = error_of([&] { parse_manifest(bad, "m.json"); });
    EXPECT_EQ(error.code(), Code::kCorrupt);
    EXPECT_THAT(error.what(), HasSubstr("m.json: "));
  }
}

// Seeds of another version would all end at the first field that the parser looks at.
TEST(Manifest, IsReadFromTheGoodSeedOfItsFuzzTarget) {
  const std::filesystem::path folder = testing::test_dir() / "fuzz/seeds/manifest";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is not here (an installed copy?)";
  EXPECT_NO_THROW(parse_manifest(testing::read_file(folder / "good.json"), "good.json"))
      << "run tests/fuzz/write_manifest_seeds.py with a manifest of this version";
}

TEST(Manifest, IsOnlyInAFolderThatWasConverted) {
  ScratchFolder scratch;
  EXPECT_FALSE(is_store(scratch.path()));
  const Error error = error_of([&] { read_manifest(scratch.path()); });
  EXPECT_EQ(error.code(), Code::kNotFound);
  EXPECT_THAT(error.what(), HasSubstr("sluice convert"));
}

TEST(Manifest, NoticesFilesThatAreMissingShortOrLong) {
  ScratchFolder scratch;
  const Manifest manifest = write_store(scratch / "store", plan_of(tiny_spec()));
  const std::filesystem::path file = scratch.path() / "store" / manifest.files[2];
  const auto size = std::filesystem::file_size(file);
  for (const std::uintmax_t wrong : {size - 1, size + 4096, std::uintmax_t{0}}) {
    std::filesystem::resize_file(file, wrong);
    const Error error = error_of([&] { read_manifest(scratch / "store"); });
    EXPECT_EQ(error.code(), Code::kCorrupt);
    EXPECT_THAT(error.what(), HasSubstr(fmt::format("{}: has {} bytes", file.string(), wrong)));
  }
  std::filesystem::remove(file);
  const Error error = error_of([&] { read_manifest(scratch / "store"); });
  EXPECT_EQ(error.code(), Code::kNotFound);
  EXPECT_THAT(error.what(), HasSubstr(file.string()));
}

TEST(Manifest, NoticesAMissingTokenizerFile) {
  ScratchFolder scratch;
  testing::write_file(scratch / "vocab.json", "{}");
  StoreWriter writer(StoreLock::acquire(scratch / "store"), plan_of(tiny_spec()), ExistingStore::kRefuse);
  testing::write_tensors(writer, static_cast<std::int64_t>(writer.tensors().size()));
  writer.add_tokenizer_file(scratch / "vocab.json");
  writer.commit();
  EXPECT_EQ(read_manifest(scratch / "store").tokenizer_files, std::vector<std::string>{"vocab.json"});
  std::filesystem::remove(scratch.path() / "store" / "vocab.json");
  EXPECT_THAT(error_of([&] { read_manifest(scratch / "store"); }).what(), HasSubstr("tokenizer_files[0]"));
}

TEST(StoreChecksum, IsTheSameInPieces) {
  std::vector<std::byte> bytes(1000);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i);
  StoreChecksum checksum;
  for (int round = 0; round < 2; ++round) {
    checksum.reset();
    checksum.update(std::span(bytes).first(333));
    checksum.update(std::span(bytes).subspan(333));
    EXPECT_EQ(checksum.value(), store_checksum(bytes));
  }
  EXPECT_EQ(store_checksum({}), 0x2d06800538d394c2U);  // XXH3_64bits of nothing, from its specification
}

TEST(StoreChecksum, NamesFileAndOffsetOfAChangedByte) {
  ScratchFolder scratch;
  const Manifest manifest = write_store(scratch / "store", plan_of(tiny_spec()));
  const StoredTensor& tensor = manifest.tensors[6];
  const std::filesystem::path file = scratch.path() / "store" / manifest.files[tensor.file];
  std::string bytes = testing::read_file(file);
  bytes[static_cast<std::size_t>(tensor.offset + tensor.bytes - 1)] ^= 1;
  testing::write_file(file, bytes);
  EXPECT_NO_THROW(read_stored_tensor(scratch / "store", manifest, manifest.tensors[5]));
  const Error error = error_of([&] { read_stored_tensor(scratch / "store", manifest, tensor); });
  EXPECT_EQ(error.code(), Code::kCorrupt);
  for (const std::string& part : {file.string(), fmt::format("offset {}", tensor.offset), tensor.spec.name,
                                  fmt::format("says {:016x}", tensor.checksum)}) {
    EXPECT_THAT(error.what(), HasSubstr(part));
  }
}

}  // namespace
}  // namespace sluice
