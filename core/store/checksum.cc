#include "core/store/checksum.h"

#include <new>

#include <xxhash.h>
#if defined(__x86_64__) && __has_include(<xxh_x86dispatch.h>)
#include <xxh_x86dispatch.h>  // the same hash with AVX2 or AVX-512 where the machine has it: twice as fast
#endif

#include "core/error.h"

namespace sluice {

std::uint64_t store_checksum(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

void StoreChecksum::Free::operator()(void* state) const noexcept {
  XXH3_freeState(static_cast<XXH3_state_t*>(state));
}

StoreChecksum::StoreChecksum() : state_(XXH3_createState()) {
  if (!state_) throw std::bad_alloc();
  reset();
}
void StoreChecksum::update(std::span<const std::byte> bytes) {
  XXH3_64bits_update(static_cast<XXH3_state_t*>(state_.get()), bytes.data(), bytes.size());
}
std::uint64_t StoreChecksum::value() const {
  return XXH3_64bits_digest(static_cast<const XXH3_state_t*>(state_.get()));
}
void StoreChecksum::reset() { XXH3_64bits_reset(static_cast<XXH3_state_t*>(state_.get())); }

void verify_tensor(const std::filesystem::path& store, const Manifest& manifest, const StoredTensor& tensor,
                   std::uint64_t found_checksum) {
  const auto file = static_cast<std::size_t>(tensor.file);
  SLUICE_CHECK(
      found_checksum == tensor.checksum, Code::kCorrupt,
      fmt::format("{}: offset {}: tensor {} ({} bytes): checksum is {:016x}, the manifest says {:016x}",
                  (store / manifest.files.at(file)).string(), tensor.offset, tensor.spec.name, tensor.bytes,
                  found_checksum, tensor.checksum),
      "the file changed after conversion: convert the checkpoint again, and check the disk");
}

void verify_tensor(const std::filesystem::path& store, const Manifest& manifest, const StoredTensor& tensor,
                   std::span<const std::byte> bytes) {
  SLUICE_ASSERT(static_cast<std::int64_t>(bytes.size()) == tensor.bytes);
  verify_tensor(store, manifest, tensor, store_checksum(bytes));
}

}  // namespace sluice
