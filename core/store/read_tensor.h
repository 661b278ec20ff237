// Reads stored tensors without the engine: for `inspect --verify`, for resuming a conversion, and for tests.
// Reads past the page cache where the file system allows it, in bounded pieces. Thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <vector>

#include "core/store/manifest.h"

namespace sluice {

/// Calls `use` with the tensor's bytes in order. Throws Error{kIo, kCorrupt, kNotFound} with file and offset.
void for_each_piece(const std::filesystem::path& store, const Manifest& manifest, const StoredTensor& tensor,
                    const std::function<void(std::span<const std::byte>)>& use);

/// The checksum of the bytes that are on disk now.
std::uint64_t checksum_on_disk(const std::filesystem::path& store, const Manifest& manifest,
                               const StoredTensor& tensor);

/// The tensor's bytes, verified. Throws also what verify_tensor throws.
std::vector<std::byte> read_stored_tensor(const std::filesystem::path& store, const Manifest& manifest,
                                          const StoredTensor& tensor);

}  // namespace sluice
