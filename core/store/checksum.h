// The checksum of stored tensors: XXH3, 64 bits, seed 0. Thread-safe, except that one StoreChecksum belongs
// to one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

#include "core/store/manifest.h"

namespace sluice {

std::uint64_t store_checksum(std::span<const std::byte> bytes);

/// The same value for bytes that arrive in pieces.
class StoreChecksum {
 public:
  StoreChecksum();
  void update(std::span<const std::byte> bytes);
  std::uint64_t value() const;
  /// Starts over for the next tensor.
  void reset();

 private:
  struct Free {
    void operator()(void* state) const noexcept;
  };
  std::unique_ptr<void, Free> state_;
};

/// Call when a tensor's bytes were first read into a memory tier. Throws Error{kCorrupt} that names file,
/// offset, tensor, the checksum expected and the one found.
void verify_tensor(const std::filesystem::path& store, const Manifest& manifest, const StoredTensor& tensor,
                   std::uint64_t found_checksum);
void verify_tensor(const std::filesystem::path& store, const Manifest& manifest, const StoredTensor& tensor,
                   std::span<const std::byte> bytes);

}  // namespace sluice
