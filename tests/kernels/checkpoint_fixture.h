// Small OPT checkpoints with safetensors weights, made by the test itself.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/dtype.h"
#include "tests/core/store_fixture.h"

namespace sluice::testing {

/// The value of an element; both 16-bit types and fp32 hold it exactly or round it.
inline float value_of(const std::string& tensor, std::int64_t element) {
  const auto hash = static_cast<std::int64_t>(tensor.size() * 37 + static_cast<unsigned char>(tensor.back()));
  return static_cast<float>((element * 7919 + hash * 104729) % 4001 - 2000) / 1537.0F;
}

struct TinyCheckpoint {
  ModelSpec spec = tiny_spec();
  std::function<DType(const std::string&)> dtype = [](const std::string&) { return DType::kF16; };
  std::function<float(const std::string&, std::int64_t)> value = value_of;
  bool with_config = true, with_tokenizer = true;
  std::size_t header_size_mod_64 = 0;  ///< odd: no element lies at a multiple of its size
};

inline void append_element(std::string& bytes, DType dtype, float value) {
  const auto put = [&](const auto& element) {
    bytes.append(reinterpret_cast<const char*>(&element), sizeof(element));
  };
  if (dtype == DType::kF16) put(to_half(value));
  if (dtype == DType::kBF16) put(to_bfloat16(value));
  if (dtype == DType::kF32) put(value);
}

inline nlohmann::json config_json(const ModelSpec& spec) {
  return {{"model_type", "opt"},
          {"_name_or_path", "facebook/tiny"},
          {"num_hidden_layers", spec.num_layers},
          {"hidden_size", spec.hidden_dim},
          {"ffn_dim", spec.ffn_dim},
          {"num_attention_heads", spec.num_heads},
          {"vocab_size", spec.vocab_size},
          {"word_embed_proj_dim", spec.embed_dim},
          {"max_position_embeddings", spec.max_positions},
          {"activation_function", "relu"}};
}

/// Writes model.safetensors (tensors in an order of its own), config.json and tokenizer files into `folder`.
inline void write_checkpoint(const std::filesystem::path& folder, const TinyCheckpoint& checkpoint) {
  std::filesystem::create_directories(folder);
  nlohmann::json header;
  std::string data;
  std::vector<TensorSpec> tensors = model_tensors(checkpoint.spec);
  std::reverse(tensors.begin(), tensors.end());
  for (const TensorSpec& tensor : tensors) {
    const DType dtype = checkpoint.dtype(tensor.name);
    const std::size_t begin = data.size();
    for (std::int64_t i = 0; i < tensor.rows * tensor.cols; ++i) {
      append_element(data, dtype, checkpoint.value(tensor.name, i));
    }
    nlohmann::json shape = nlohmann::json::array();
    if (!tensor.is_vector) shape.push_back(tensor.rows);
    shape.push_back(tensor.cols);
    const char* const type = dtype == DType::kF16 ? "F16" : dtype == DType::kBF16 ? "BF16" : "F32";
    header["model." + tensor.name] = {
        {"dtype", type}, {"shape", shape}, {"data_offsets", {begin, data.size()}}};
  }
  std::string text = header.dump();
  while (text.size() % 64 != checkpoint.header_size_mod_64) text += ' ';
  const std::uint64_t length = text.size();
  std::string file(reinterpret_cast<const char*>(&length), sizeof(length));
  write_file(folder / "model.safetensors", file + text + data);
  if (checkpoint.with_config) write_file(folder / "config.json", config_json(checkpoint.spec).dump(2));
  if (checkpoint.with_tokenizer) {
    write_file(folder / "vocab.json", R"({"a": 0})");
    write_file(folder / "merges.txt", "#version: 0.2\n");
  }
}

/// All files of a folder and their content.
inline std::map<std::string, std::string> content_of(const std::filesystem::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file())
      files[entry.path().lexically_relative(folder).string()] = read_file(entry.path());
  }
  return files;
}

}  // namespace sluice::testing
