#include <fmt/format.h>

#include "tests/fakes/checkpoint_cases.h"

namespace sluice::testing {

std::vector<ParserCase> hf_config_cases() {
  const auto opt = [](std::string_view keys) { return fmt::format(R"({{"model_type": "opt", {}}})", keys); };
  std::string deep;
  for (int i = 0; i < 40; ++i) deep += "[";
  return {
      {"defaults", R"({"model_type": "opt"})"},
      {"opt_350m",
       opt(R"("hidden_size": 1024, "num_hidden_layers": 24, "ffn_dim": 4096, "num_attention_heads": 16,)"
           R"("word_embed_proj_dim": 512, "do_layer_norm_before": false, "activation_function": "relu",)"
           R"("enable_bias": true, "layer_norm_elementwise_affine": true, "tie_word_embeddings": true,)"
           R"("_remove_final_layer_norm": false, "bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1,)"
           R"("max_position_embeddings": 2048, "vocab_size": 50272, "_name_or_path": "facebook/opt-350m/")")},
      {"nulls", opt(R"("word_embed_proj_dim": null, "pad_token_id": null, "quantization_config": null)")},
      {"gelu", opt(R"("activation_function": "gelu")")},
      {"gelu_fast", opt(R"("activation_function": "gelu_fast")")},

      {"no_json", R"({"model_type": )", Code::kCorrupt, "parse error at line 1, column 16"},
      {"empty_text", "", Code::kCorrupt, "parse error"},
      {"text_behind", R"({"model_type": "opt"} x)", Code::kCorrupt, "parse error"},
      {"key_twice", opt(R"("ffn_dim": 1, "ffn_dim": 2)"), Code::kCorrupt, "key 'ffn_dim' appears twice"},
      {"too_deep", opt(R"("x": )" + deep), Code::kCorrupt, "nested deeper than 32 levels"},
      {"number_overflow", opt(R"("ffn_dim": 1e999)"), Code::kCorrupt, "number overflow"},
      {"no_object", "[1, 2]", Code::kCorrupt, "the text is no JSON object"},
      {"no_model_type", "{}", Code::kInvalidArgument, "model_type is missing; add it; known are 'opt'"},
      {"model_type_number", R"({"model_type": 1})", Code::kInvalidArgument,
       "model_type is 1, must be a string"},
      {"model_type_unknown", R"({"model_type": "gpt2"})", Code::kUnsupported,
       "model_type is 'gpt2'; known are 'opt'"},
      {"quantised", opt(R"("quantization_config": {"bits": 4})"), Code::kUnsupported,
       "quantization_config is set"},
      {"layers_zero", opt(R"("num_hidden_layers": 0)"), Code::kInvalidArgument,
       "num_hidden_layers is 0, must be an integer from 1 to 10000"},
      {"hidden_text", opt(R"("hidden_size": "768")"), Code::kInvalidArgument,
       R"(hidden_size is "768", must be)"},
      {"ffn_negative", opt(R"("ffn_dim": -3072)"), Code::kInvalidArgument, "ffn_dim is -3072, must be"},
      {"heads_fraction", opt(R"("num_attention_heads": 12.0)"), Code::kInvalidArgument,
       "num_attention_heads is 12.0"},
      {"vocab_huge", opt(R"("vocab_size": 18446744073709551615)"), Code::kInvalidArgument,
       "vocab_size is 18446744073709551615, must be"},
      {"positions_true", opt(R"("max_position_embeddings": true)"), Code::kInvalidArgument,
       "max_position_embeddings is true"},
      {"embed_long_text", opt(fmt::format(R"("word_embed_proj_dim": "{}")", std::string(100, 'x'))),
       Code::kInvalidArgument, "xxx..., must be an integer"},
      {"token_id_negative", opt(R"("eos_token_id": -1)"), Code::kInvalidArgument, "eos_token_id is -1"},
      {"token_id_list", opt(R"("bos_token_id": [2])"), Code::kInvalidArgument, "bos_token_id is [2]"},
      {"pad_huge", opt(R"("pad_token_id": 2147483648)"), Code::kInvalidArgument,
       "pad_token_id is 2147483648"},
      {"bias_number", opt(R"("enable_bias": 1)"), Code::kInvalidArgument,
       "enable_bias is 1, must be true or false"},
      {"affine_number", opt(R"("layer_norm_elementwise_affine": 1)"), Code::kInvalidArgument,
       "elementwise_affine is 1"},
      {"norm_number", opt(R"("do_layer_norm_before": 1)"), Code::kInvalidArgument,
       "do_layer_norm_before is 1"},
      {"remove_number", opt(R"("_remove_final_layer_norm": 1)"), Code::kInvalidArgument,
       "_remove_final_layer_norm is 1"},
      {"tie_number", opt(R"("tie_word_embeddings": 1)"), Code::kInvalidArgument, "tie_word_embeddings is 1"},
      {"activation_number", opt(R"("activation_function": 1)"), Code::kInvalidArgument,
       "activation_function is 1"},
      {"activation_unknown", opt(R"("activation_function": "swish")"), Code::kUnsupported,
       "activation_function is 'swish'; known are relu"},
      {"heads_do_not_divide", opt(R"("num_attention_heads": 7)"), Code::kInvalidArgument,
       "768 is not a multiple of num_attention_heads, 7"},
      {"head_dim", opt(R"("num_attention_heads": 1)"), Code::kInvalidArgument,
       "head_dim 768 is not a multiple of 8"},
      {"several_problems", opt(R"("ffn_dim": 0, "enable_bias": "yes")"), Code::kInvalidArgument,
       R"(ffn_dim is 0, must be an integer from 1 to 16777216; enable_bias is "yes", must be true or false)"},
  };
}

std::vector<ParserCase> shard_index_cases() {
  return {
      {"index",
       R"({"metadata": {"total_size": 8}, "weight_map": {"a": "1.bin", "b": "2.bin", "c": "1.bin"}})"},
      {"index_no_json", "{", Code::kCorrupt, "parse error"},
      {"index_tensor_twice", R"({"weight_map": {"a": "1.bin", "a": "2.bin"}})", Code::kCorrupt,
       "key 'a' appears twice"},
      {"index_no_map", "{}", Code::kCorrupt, "weight_map is missing, empty or no object"},
      {"index_map_empty", R"({"weight_map": {}})", Code::kCorrupt,
       "weight_map is missing, empty or no object"},
      {"index_map_list", R"({"weight_map": ["a"]})", Code::kCorrupt,
       "weight_map is missing, empty or no object"},
      {"index_file_number", R"({"weight_map": {"a": 1}})", Code::kCorrupt,
       "the file of tensor 'a' is no string"},
      {"index_file_empty", R"({"weight_map": {"a": ""}})", Code::kCorrupt, "which is no plain file name"},
      {"index_file_absolute", R"({"weight_map": {"a": "/etc/passwd"}})", Code::kCorrupt,
       "tensor 'a' names file '/etc/passwd', which is no plain file name"},
      {"index_file_above", R"({"weight_map": {"a": "..\\x"}})", Code::kCorrupt,
       "which is no plain file name"},
      {"index_file_parent", R"({"weight_map": {"a": ".."}})", Code::kCorrupt, "which is no plain file name"},
      {"index_file_nul", R"({"weight_map": {"a": "a\u0000b"}})", Code::kCorrupt,
       "which is no plain file name"},
  };
}

}  // namespace sluice::testing
