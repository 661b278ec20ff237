// Reads a Hugging Face config.json into a ModelSpec. Thread-safe.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "core/model/spec.h"

namespace sluice {

/// `model_type` decides the family; absent keys take transformers' defaults. Throws Error{kUnsupported} for
/// an unknown model_type (lists the known ones), Error{kInvalidArgument} or {kCorrupt} naming key and file.
/// `weight_dtype` is left at kF16; the caller sets it from the checkpoint's tensors.
ModelSpec parse_hf_config(std::string_view json, const std::string& file_name);
ModelSpec read_hf_config(const std::filesystem::path& config_json);

/// The canonical name (as model_tensors spells it) of a checkpoint's tensor: strips "model.", maps OPT's
/// old "decoder.layer_norm." to "decoder.final_layer_norm.". Returns "" for names a loader ignores
/// (a tied lm_head.weight, position ids and the like).
std::string canonical_tensor_name(const ModelSpec& spec, std::string_view checkpoint_name);

}  // namespace sluice
