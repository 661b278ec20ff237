// What config.json means; its errors are among the cases of checkpoint/parser_test.
#include "core/model/hf_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/fakes/temp_folder.h"

namespace sluice {
namespace {

using testing::error_of;
using ::testing::HasSubstr;
using testing::TempFolder;

ModelSpec parse(const std::string& json) { return parse_hf_config(json, "models/my-opt/config.json"); }

TEST(HfConfig, TakesTransformersDefaults) {
  ModelSpec expected;
  expected.name = "my-opt";
  expected.num_layers = 12;
  expected.hidden_dim = 768;
  expected.ffn_dim = 3072;
  expected.num_heads = 12;
  expected.num_kv_heads = 12;
  expected.head_dim = 64;
  expected.vocab_size = 50272;
  expected.embed_dim = 768;
  expected.max_positions = 2048;
  EXPECT_EQ(parse(R"({"model_type": "opt"})"), expected);
  EXPECT_EQ(num_parameters(expected), 125'239'296);  // facebook/opt-125m
}

TEST(HfConfig, ReadsEveryKey) {
  const ModelSpec spec = parse(
      R"({"model_type": "opt", "_name_or_path": "facebook/opt-350m/", "num_hidden_layers": 24, "hidden_size": 1024,
          "ffn_dim": 4096, "num_attention_heads": 16, "vocab_size": 50000, "word_embed_proj_dim": 512,
          "max_position_embeddings": 1024, "activation_function": "gelu", "enable_bias": false,
          "layer_norm_elementwise_affine": false, "do_layer_norm_before": false, "tie_word_embeddings": false,
          "bos_token_id": 0, "eos_token_id": 3, "pad_token_id": 4})");
  ModelSpec expected;
  expected.name = "opt-350m";
  expected.num_layers = 24;
  expected.hidden_dim = 1024;
  expected.ffn_dim = 4096;
  expected.num_heads = 16;
  expected.num_kv_heads = 16;
  expected.head_dim = 64;
  expected.vocab_size = 50000;
  expected.embed_dim = 512;
  expected.max_positions = 1024;
  expected.activation = Activation::kGelu;
  expected.has_bias = false;
  expected.norm_affine = false;
  expected.pre_norm = false;
  expected.final_norm = false;
  expected.tied_embedding = false;
  expected.bos_id = 0;
  expected.eos_id = 3;
  expected.pad_id = 4;
  EXPECT_EQ(spec, expected);
}

TEST(HfConfig, HasAFinalNormOnlyWithPreNormAndUnlessRemoved) {
  EXPECT_TRUE(parse(R"({"model_type": "opt", "_remove_final_layer_norm": false})").final_norm);
  EXPECT_FALSE(parse(R"({"model_type": "opt", "_remove_final_layer_norm": true})").final_norm);
  EXPECT_FALSE(parse(R"({"model_type": "opt", "do_layer_norm_before": false})").final_norm);
}

TEST(HfConfig, KnowsTheActivationsByTheirNames) {
  const auto activation_of = [](const std::string& name) {
    return parse(R"({"model_type": "opt", "activation_function": ")" + name + "\"}").activation;
  };
  EXPECT_EQ(activation_of("relu"), Activation::kRelu);
  EXPECT_EQ(activation_of("gelu"), Activation::kGelu);
  EXPECT_EQ(activation_of("gelu_new"), Activation::kGeluTanh);
  EXPECT_EQ(activation_of("gelu_fast"), Activation::kGeluTanh);
  EXPECT_EQ(activation_of("gelu_pytorch_tanh"), Activation::kGeluTanh);
}

TEST(HfConfig, ReadsTheFileAndNamesTheModelAfterItsFolder) {
  const TempFolder folder;
  const auto path = folder.write("config.json", R"({"model_type": "opt"})");
  EXPECT_EQ(read_hf_config(path).name, folder.path().filename());
}

TEST(HfConfig, SaysWhenTheFileIsMissingOrAbsurd) {
  const TempFolder folder;
  const Error missing = error_of([&] { (void)read_hf_config(folder.path() / "config.json"); });
  EXPECT_EQ(missing.code(), Code::kNotFound);
  EXPECT_THAT(missing.what(), HasSubstr("--config"));
  const auto path = folder.write("config.json", std::string((1 << 20) + 1, ' '));
  const Error large = error_of([&] { (void)read_hf_config(path); });
  EXPECT_EQ(large.code(), Code::kCorrupt);
  EXPECT_THAT(large.what(), HasSubstr("1048577 bytes, the limit for a config.json is 1048576"));
}

TEST(CanonicalTensorName, StripsAndRenamesAndIgnores) {
  const ModelSpec tied = parse(R"({"model_type": "opt"})");
  const auto name = [&](std::string_view from) { return canonical_tensor_name(tied, from); };
  EXPECT_EQ(name("model.decoder.layers.3.fc1.weight"), "decoder.layers.3.fc1.weight");
  EXPECT_EQ(name("decoder.layers.3.fc1.weight"), "decoder.layers.3.fc1.weight");
  EXPECT_EQ(name("model.decoder.layer_norm.bias"), "decoder.final_layer_norm.bias");
  EXPECT_EQ(name("decoder.layers.3.final_layer_norm.bias"), "decoder.layers.3.final_layer_norm.bias");
  EXPECT_EQ(name("decoder.layer_norms"), "decoder.layer_norms");
  EXPECT_EQ(name("lm_head.weight"), "");
  EXPECT_EQ(name("model.decoder.version"), "");
  EXPECT_EQ(name("model.decoder.embed_positions._float_tensor"), "");
  EXPECT_EQ(name("model.position_ids"), "");
  ModelSpec untied = tied;
  untied.tied_embedding = false;
  EXPECT_EQ(canonical_tensor_name(untied, "lm_head.weight"), "lm_head.weight");
}

}  // namespace
}  // namespace sluice
