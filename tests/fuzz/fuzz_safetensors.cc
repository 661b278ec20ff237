// Any bytes are a safetensors header whose tensors can be read, or an Error.
#include "core/checkpoint/safetensors.h"
#include "tests/fuzz/checkpoint_target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  sluice::fuzz::check_container(data, size, sluice::read_safetensors_header);
  return 0;
}
