// Stores of one checkpoint in several formats: what they are called, when they are remade, and what
// compressing chooses.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/log.h"
#include "kernels/format/resolve.h"
#include "tests/kernels/checkpoint_fixture.h"

namespace sluice::kernels {
namespace {

namespace fs = std::filesystem;
using testing::error_of;
using ::testing::HasSubstr;
using testing::ScratchFolder;
using testing::TinyCheckpoint;
using testing::write_checkpoint;

ResolveOptions options_for(Encoding format, double sparsity = 0) {
  ResolveOptions options;
  options.source.formats.format = format;
  options.source.formats.sparsity = sparsity;
  return options;
}
ResolveOptions compressed() {
  ResolveOptions options;
  options.source.formats.compress = true;
  return options;
}

std::map<std::string, Encoding> encodings_in(const fs::path& store) {
  std::map<std::string, Encoding> found;
  for (const StoredTensor& tensor : read_manifest(store).tensors) {
    if (can_be_encoded(tensor.spec)) {
      found[tensor.spec.name] = tensor.format.encoding;
    } else {
      EXPECT_EQ(tensor.format.encoding, Encoding::kDense) << tensor.spec.name;
    }
  }
  return found;
}

class ResolveFormats : public ::testing::Test {
 protected:
  ResolveFormats() { write_checkpoint(model_, checkpoint_); }

  const ScratchFolder scratch_;
  const TinyCheckpoint checkpoint_;
  const fs::path model_ = scratch_ / "model";
};

TEST_F(ResolveFormats, LiveSideBySide) {
  const std::vector<std::pair<ResolveOptions, std::string>> cases = {
      {{}, "sluice-store"},
      {options_for(Encoding::kBitmap), "sluice-store-bitmap"},
      {options_for(Encoding::kDense, 0.8), "sluice-store-s0.8"},
      {options_for(Encoding::kBitmap, 0.8), "sluice-store-bitmap-s0.8"},
      {options_for(Encoding::kInt4G64), "sluice-store-int4_g64"},
      {compressed(), "sluice-store-int4"},
  };
  for (const auto& [options, name] : cases) {
    const ResolvedModel made = resolve_model(model_, options);
    EXPECT_EQ(made.store, model_ / name);
    EXPECT_TRUE(made.converted) << name;
  }
  for (const auto& [options, name] : cases) {
    const ResolvedModel found = resolve_model(model_, options);
    EXPECT_EQ(found.store, model_ / name);
    EXPECT_FALSE(found.converted) << name;
    for (const auto& [tensor, encoding] : encodings_in(found.store)) {
      const FormatConfig& formats = options.source.formats;
      EXPECT_EQ(encoding, formats.compress ? Encoding::kInt4G64 : formats.format) << name << " " << tensor;
    }
  }
  // A file has its stores beside it.
  EXPECT_EQ(resolve_model(model_ / "model.safetensors", options_for(Encoding::kBitmap)).store,
            model_ / "model.sluice-store-bitmap");
}

TEST_F(ResolveFormats, AreRemadeWhereTheyAreKeptForAnotherRule) {
  const auto with = [](auto change) {
    ResolveOptions options = options_for(Encoding::kBitmap, 0.5);
    change(options.source.formats);
    return options;
  };
  const std::vector<std::pair<std::string, ResolveOptions>> cases = {
      {"at first", with([](FormatConfig&) {})},
      {"scope", with([](FormatConfig& formats) { formats.prune_per = PruneScope::kMatrix; })},
      {"sparsity", with([](FormatConfig& formats) { formats.sparsity = 0.6; })},
      {"encoding", with([](FormatConfig& formats) { formats.format = Encoding::kTiledCsl; })},
      {"one matrix", with([](FormatConfig& formats) {
         formats.overrides = {
             {.layers = "1", .tensors = "fc1", .format = Encoding::kDense, .sparsity = {}, .prune_per = {}}};
       })},
      {"dense", {}},
      {"encoding alone", options_for(Encoding::kBitmap)},
      {"compressed", compressed()},
  };
  for (auto [what, options] : cases) {
    options.store = scratch_ / "kept";
    EXPECT_TRUE(resolve_model(model_, options).converted) << what;
    EXPECT_FALSE(resolve_model(model_, options).converted) << what;
  }
}

TEST_F(ResolveFormats, ANameIsOfOneFormatAlone) {
  ResolveOptions both = compressed();
  both.source.formats.format = Encoding::kBitmap;  // which leaves nothing to compress
  const ResolvedModel made = resolve_model(model_, both);
  for (const auto& [tensor, encoding] : encodings_in(made.store)) EXPECT_EQ(encoding, Encoding::kBitmap);
  EXPECT_EQ(made.store, model_ / "sluice-store-bitmap");
  EXPECT_FALSE(resolve_model(model_, options_for(Encoding::kBitmap)).converted) << "it is the same";
}

TEST_F(ResolveFormats, AStoreHasItsFormatsAlready) {
  const fs::path store = resolve_model(model_, options_for(Encoding::kBitmap)).store;
  EXPECT_EQ(resolve_model(store, {}).store, store);
  for (const ResolveOptions& options :
       {options_for(Encoding::kBitmap), options_for(Encoding::kDense, 0.5), compressed()}) {
    const Error error = error_of([&] { resolve_model(store, options); });
    EXPECT_EQ(error.code(), Code::kInvalidArgument);
    EXPECT_THAT(error.what(), HasSubstr(store.string()));
    EXPECT_THAT(error.fix(), HasSubstr("leave --format, --sparsity and --compress-weight out"));
  }
}

TEST(Compress, KeepsTheZerosOfMatricesThatAreMoreThanHalfZerosAndSaysSo) {
  const ScratchFolder scratch;
  TinyCheckpoint checkpoint;
  checkpoint.value = [](const std::string& name, std::int64_t i) {
    const float value = testing::value_of(name, i);
    const bool is_zero = name == "decoder.layers.1.fc2.weight" ? i % 5 < 3 : i % 5 < 2;
    return is_zero ? 0.0F : value;
  };
  write_checkpoint(scratch / "model", checkpoint);
  ::testing::internal::CaptureStderr();
  const ResolvedModel made = resolve_model(scratch / "model", compressed());
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(said, HasSubstr("1 matrices are more than half zeros and become bitmap_int4"));
  for (const auto& [tensor, encoding] : encodings_in(made.store)) {
    EXPECT_EQ(encoding, tensor == "decoder.layers.1.fc2.weight" ? Encoding::kBitmapInt4 : Encoding::kInt4G64)
        << tensor;
  }
}

TEST(Compress, CountsTheZerosThatPruningMakes) {
  const ScratchFolder scratch;
  write_checkpoint(scratch / "model", {});
  for (const double sparsity : {0.5, 0.6}) {
    ResolveOptions options = compressed();
    options.source.formats.sparsity = sparsity;
    for (const auto& [tensor, encoding] : encodings_in(resolve_model(scratch / "model", options).store)) {
      EXPECT_EQ(encoding, sparsity > 0.5 ? Encoding::kBitmapInt4 : Encoding::kInt4G64) << tensor;
    }
  }
}

}  // namespace
}  // namespace sluice::kernels
