// Any text is a config.json that gives a sound model spec, or an Error; the same for an index of shards.
#include "core/checkpoint/shard_index.h"
#include "core/model/hf_config.h"
#include "tests/fuzz/checkpoint_target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sluice;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const ModelSpec spec = parse_hf_config(text, "fuzz");
    validate(spec);
    fuzz::require(num_parameters(spec) > 0);
    fuzz::note_outcome("a model");
  } catch (const Error& e) {
    fuzz::note_unquoted(e.what());
  }
  try {
    for (const auto& [file, tensors] : parse_shard_index(text, "fuzz").files) {
      fuzz::require(!tensors.empty() && file.find('/') == std::string::npos && file != "..");
    }
    fuzz::note_outcome("an index");
  } catch (const Error& e) {
    fuzz::note_unquoted(e.what());
  }
  return 0;
}
