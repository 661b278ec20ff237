// Any bytes are a .npy array that can be read, or an Error.
#include "core/checkpoint/npy.h"
#include "tests/fuzz/checkpoint_target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  sluice::fuzz::check_container(
      data, size, [](sluice::ByteSource& source) { return std::vector{read_npy_header(source, "weight")}; });
  return 0;
}
