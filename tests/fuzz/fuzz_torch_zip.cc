// Any bytes are a file of torch.save whose tensors can be read, or an Error. What does not begin as a zip
// archive is also tried as data.pkl alone, over storages of 64 bytes, so that mutations of the pickle need
// not keep an archive around it intact.
#include "core/checkpoint/torch_zip.h"
#include "tests/fuzz/checkpoint_target.h"

namespace {

std::vector<sluice::TensorRecord> read_either(sluice::ByteSource& source) {
  if (sluice::is_torch(source)) return sluice::read_torch_header(source);
  const std::int64_t storage_bytes = std::min<std::int64_t>(64, source.size());
  return sluice::read_state_dict(source, 0, source.size(), [&](const std::string&) {
    return sluice::ZipData{0, storage_bytes};
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  sluice::fuzz::check_container(data, size, read_either);
  return 0;
}
