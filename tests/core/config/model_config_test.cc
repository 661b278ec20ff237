#include "core/config/model_config.h"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/config/builtin_models.h"
#include "core/config/config.h"
#include "core/error.h"
#include "tests/support/paths.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

// facebook/opt-*: Hugging Face's checkpoints, vocabulary padding rows included, the tied embedding once; and
// the bytes that K and V of one token take in fp16.
struct OptRow {
  const char* name;
  std::int64_t parameters, head_dim, kv_bytes;
};
constexpr OptRow kOpt[] = {
    {"opt-125m", 125239296, 64, 36864},       {"opt-350m", 331196416, 64, 98304},
    {"opt-1.3b", 1315758080, 64, 196608},     {"opt-2.7b", 2651596800, 80, 327680},
    {"opt-6.7b", 6658473984, 128, 524288},    {"opt-13b", 12853473280, 128, 819200},
    {"opt-30b", 29974540288, 128, 1376256},   {"opt-66b", 65719701504, 128, 2359296},
    {"opt-175b", 174604468224, 128, 4718592},
};

TEST(BuiltinModels, AreTheNineOptWithTheirSizes) {
  for (const OptRow& row : kOpt) {
    const auto spec = find_builtin_model(row.name);
    ASSERT_TRUE(spec.has_value()) << row.name;
    EXPECT_EQ(spec->name, row.name);
    EXPECT_EQ(num_parameters(*spec), row.parameters) << row.name;
    EXPECT_EQ(spec->head_dim, row.head_dim);
    EXPECT_EQ(spec->num_heads * spec->head_dim, spec->hidden_dim);
    EXPECT_EQ(2 * 2 * spec->num_layers * spec->num_kv_heads * spec->head_dim, row.kv_bytes);
    EXPECT_EQ(spec->vocab_size, 50272);
    EXPECT_EQ(spec->max_positions, 2048);
    EXPECT_EQ(spec->eos_id, 2);
    const bool is_post_norm = std::string_view(row.name) == "opt-350m";
    EXPECT_EQ(spec->pre_norm, !is_post_norm);
    EXPECT_EQ(spec->final_norm, !is_post_norm);
    EXPECT_EQ(spec->embed_dim, is_post_norm ? 512 : spec->hidden_dim);
  }
}

TEST(BuiltinModels, AreNamedFromSmallToLarge) {
  std::vector<std::string> names;
  for (const OptRow& row : kOpt) names.emplace_back(row.name);
  EXPECT_EQ(builtin_model_names(), names);
}

TEST(BuiltinModels, AreFoundInAnyCaseAndOnlyByName) {
  EXPECT_TRUE(find_builtin_model("OPT-30B").has_value());
  EXPECT_FALSE(find_builtin_model("opt-31b").has_value());
  EXPECT_FALSE(find_builtin_model("").has_value());
}

TEST(BuiltinModels, AreTheFilesOfTheRepository) {
  const auto folder = testing::test_dir().parent_path() / "configs" / "models";
  if (!std::filesystem::is_directory(folder)) return;  // an installed folder carries the embedded texts alone
  std::size_t num_files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    ++num_files;
    EXPECT_EQ(load_model_config(entry.path()), find_builtin_model(entry.path().stem().string()));
  }
  EXPECT_EQ(num_files, detail::builtin_model_texts().size());
}

TEST(ModelConfig, PrintedSpecReadsBackEqual) {
  ModelSpec spec = find_builtin_model("opt-350m").value();
  spec.name = "# odd: name";
  spec.norm_eps = 3.3e-6F;
  spec.activation = Activation::kGeluTanh;
  spec.weight_dtype = DType::kBF16;
  spec.has_bias = spec.tied_embedding = spec.norm_affine = false;
  EXPECT_EQ(parse_model_config(print_config(spec), "x.yaml"), spec);
}

TEST(ModelConfig, HasAKeyForEveryMember) {
  // Naming every member makes a new one a compile error here; the count then says whether it has a key.
  [[maybe_unused]] const auto& [family, name, num_layers, hidden_dim, ffn_dim, num_heads, num_kv_heads,
                                head_dim, vocab_size, embed_dim, max_positions, position_offset, activation,
                                has_bias, norm_affine, pre_norm, final_norm, tied_embedding, norm_eps, bos_id,
                                eos_id, pad_id, weight_dtype] = ModelSpec{};
  EXPECT_EQ(config_fields<ModelSpec>().size(), 23U);
}

std::string refusal(std::string_view yaml) {
  try {
    parse_model_config(yaml, "m.yaml");
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kInvalidArgument);
    return e.what();
  }
  return "";
}

TEST(ModelConfig, RefusesWhatIsNoModel) {
  EXPECT_EQ(refusal("num_layer: 3\nnum_heads: 0\nactivation: silu\nweight_dtype: f32\n"),
            "m.yaml:1: num_layer: unknown key; did you mean 'num_layers'?\n"
            "m.yaml:2: num_heads: '0' is out of range; write a whole number of at least 1\n"
            "m.yaml:3: activation: 'silu' is not one of the names; did you mean 'relu'?\n"
            "m.yaml:4: weight_dtype: 'f32' is not one of the names; did you mean 'f16'?");
  EXPECT_THAT(refusal("name: x\n"), HasSubstr("m.yaml: model 'x': num_layers is 0, must be positive"));
}

}  // namespace
}  // namespace sluice
