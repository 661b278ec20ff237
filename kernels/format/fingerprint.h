// Notices that a checkpoint is no longer the one that a store was made from. Thread-safe.
//
// The text has one line per file of weights, with its name, size, time of change and the hash of its header
// (the names, types, shapes and places of its tensors), and one per small file with the hash of its content:
//
//   weights pytorch_model-00001-of-00002.bin 9960750957 1683022301.000000000 5d0a2d0c7e3d4a11
//   file config.json 651 0a1b2c3d4e5f6071
//
// Names are file names without folders, so that a checkpoint may be moved with its store; bytes outside
// printable ASCII are written as %XX. Lines are sorted.
#pragma once

#include <filesystem>
#include <span>

#include "core/checkpoint/reader.h"
#include "core/store/manifest.h"

namespace sluice::kernels {

/// `small_files` are read as a whole. Throws Error{kIo, kNotFound} for a file that cannot be looked at.
SourceFingerprint fingerprint_of(std::span<const CheckpointTensor> tensors,
                                 std::span<const std::filesystem::path> small_files);

}  // namespace sluice::kernels
