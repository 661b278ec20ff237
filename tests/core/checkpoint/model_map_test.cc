#include "core/checkpoint/model_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/model/hf_config.h"
#include "tests/fakes/temp_folder.h"

namespace sluice {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

ModelSpec small_spec() {
  return parse_hf_config(R"({"model_type": "opt", "hidden_size": 16, "num_hidden_layers": 1, "ffn_dim": 24,
                             "num_attention_heads": 2, "vocab_size": 10, "max_position_embeddings": 6})",
                         "folder/config.json");
}

/// What a checkpoint of this model holds, under the names that transformers writes.
std::vector<CheckpointTensor> tensors_of(const ModelSpec& spec, DType dtype) {
  std::vector<CheckpointTensor> tensors;
  for (const TensorSpec& wanted : model_tensors(spec)) {
    CheckpointTensor tensor;
    tensor.name = "model." + wanted.name;
    tensor.dtype = dtype;
    tensor.shape = wanted.is_vector ? std::vector{wanted.cols} : std::vector{wanted.rows, wanted.cols};
    tensor.file = "folder/model.safetensors";
    tensors.push_back(tensor);
  }
  return tensors;
}

Error refusal_of(const ModelSpec& spec, const std::vector<CheckpointTensor>& tensors) {
  return testing::error_of([&] { (void)map_model_tensors(spec, tensors); });
}

std::size_t find(const std::vector<CheckpointTensor>& tensors, const std::string& name) {
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].name == name) return i;
  }
  ADD_FAILURE() << name;
  return 0;
}

TEST(MapModelTensors, FindsEachTensorInWhateverOrder) {
  const ModelSpec spec = small_spec();
  std::vector<CheckpointTensor> tensors = tensors_of(spec, DType::kF16);
  std::reverse(tensors.begin(), tensors.end());
  const ModelMap map = map_model_tensors(spec, tensors);
  ASSERT_EQ(map.source.size(), tensors.size());
  for (std::size_t i = 0; i < map.source.size(); ++i) EXPECT_EQ(map.source[i], tensors.size() - 1 - i);
}

TEST(MapModelTensors, AcceptsTheNamesOfOldCheckpointsAndATiedHead) {
  const ModelSpec spec = small_spec();
  std::vector<CheckpointTensor> tensors = tensors_of(spec, DType::kF32);
  for (CheckpointTensor& tensor : tensors) tensor.name = tensor.name.substr(6);
  tensors[find(tensors, "decoder.final_layer_norm.weight")].name = "decoder.layer_norm.weight";
  tensors[find(tensors, "decoder.final_layer_norm.bias")].name = "decoder.layer_norm.bias";
  tensors.push_back({"lm_head.weight", DType::kF32, {10, 16}, 0, "folder/x", 0});
  tensors.push_back({"decoder.version", DType::kF32, {1}, 0, "folder/x", 0});
  EXPECT_EQ(map_model_tensors(spec, tensors).source.size(), tensors.size() - 2);
}

TEST(MapModelTensors, StoresAsBf16OnlyWhatIsAllBf16) {
  const ModelSpec spec = small_spec();
  std::vector<CheckpointTensor> tensors = tensors_of(spec, DType::kBF16);
  EXPECT_EQ(map_model_tensors(spec, tensors).weight_dtype, DType::kBF16);
  tensors[3].dtype = DType::kF32;
  EXPECT_EQ(map_model_tensors(spec, tensors).weight_dtype, DType::kF16);
  EXPECT_EQ(map_model_tensors(spec, tensors_of(spec, DType::kF16)).weight_dtype, DType::kF16);
}

TEST(MapModelTensors, ListsEveryProblem) {
  const ModelSpec spec = small_spec();
  std::vector<CheckpointTensor> tensors = tensors_of(spec, DType::kF16);
  tensors[find(tensors, "model.decoder.layers.0.fc1.weight")].shape = {24, 17};
  tensors[find(tensors, "model.decoder.layers.0.fc2.bias")].shape = {1, 16};
  tensors[find(tensors, "model.decoder.layers.0.fc1.bias")].dtype = DType::kI8;
  tensors[find(tensors, "model.decoder.layers.0.self_attn.q_proj.bias")].name = "model.decoder.layers.0.q";
  tensors[find(tensors, "model.decoder.embed_positions.weight")].name = "decoder.embed_tokens.weight";
  const Error e = refusal_of(spec, tensors);
  EXPECT_EQ(e.code(), Code::kInvalidArgument);
  EXPECT_THAT(
      e.what(),
      AllOf(
          HasSubstr("8 problems"), HasSubstr("missing: decoder.layers.0.self_attn.q_proj.bias [16]"),
          HasSubstr("missing: decoder.embed_positions.weight [8, 16]"),
          HasSubstr("not in the model: model.decoder.layers.0.q (model.safetensors) [16]"),
          HasSubstr(
              "there twice: decoder.embed_tokens.weight (model.safetensors) and model.decoder.embed_tokens"),
          HasSubstr(
              "wrong shape: model.decoder.layers.0.fc1.weight (model.safetensors) is [24, 17], the model's "
              "config.json asks for [24, 16]"),
          HasSubstr("wrong shape: model.decoder.layers.0.fc2.bias (model.safetensors) is [1, 16]"),
          HasSubstr("wrong element type: model.decoder.layers.0.fc1.bias (model.safetensors) is i8"),
          HasSubstr("--config")));
}

TEST(MapModelTensors, CountsWhatItDoesNotList) {
  ModelSpec spec = small_spec();
  spec.num_layers = 40;
  const Error e = refusal_of(spec, {});
  EXPECT_THAT(e.what(), AllOf(HasSubstr("644 problems"), HasSubstr("missing: and 624 more")));
}

TEST(MapModelTensors, AsksForTheHeadOfAnUntiedModel) {
  ModelSpec spec = small_spec();
  spec.tied_embedding = false;
  std::vector<CheckpointTensor> tensors = tensors_of(small_spec(), DType::kF16);
  EXPECT_THAT(refusal_of(spec, tensors).what(), HasSubstr("missing: lm_head.weight [10, 16]"));
  tensors.push_back({"lm_head.weight", DType::kF16, {10, 16}, 0, "folder/x", 0});
  EXPECT_EQ(map_model_tensors(spec, tensors).source.size(), tensors.size());
}

}  // namespace
}  // namespace sluice
