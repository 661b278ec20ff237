// The table of stored weight formats: how each is encoded, decoded and cut. A new format is a folder beside
// this file and one row in format.cc. Sizes are in core/format.h. Pure functions, thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/dtype.h"
#include "core/format.h"
#include "core/model/spec.h"
#include "kernels/format/weight_view.h"

namespace sluice::kernels {

/// A run of a tensor's elements in row-major order, as a checkpoint holds them.
struct SourceRun {
  const TensorSpec* tensor = nullptr;
  DType dtype = DType::kF32;        ///< f16, bf16, f32 or f64
  std::span<const std::byte> data;  ///< whole elements, aligned to them
  std::int64_t first = 0;           ///< index of the first element in the tensor

  std::int64_t count() const { return static_cast<std::int64_t>(data.size()) / dtype_bytes(dtype); }
};

struct FormatCodec {
  WeightFormat format;

  /// A tensor may be encoded run by run. Runs start at multiples of this many elements, and all but the last
  /// have a multiple of it.
  std::int64_t (*run_granule)(const TensorSpec& tensor);
  /// Most bytes that a run of `count` elements encodes to.
  std::int64_t (*max_run_bytes)(const TensorSpec& tensor, std::int64_t count);
  /// Encodes a run into the start of `out`, which may be the run's own memory if elements keep their size,
  /// and returns the bytes written. Runs of a tensor in order give exactly its stored bytes. Throws
  /// Error{kInvalidArgument} naming tensor, row, column and value for what the format cannot hold: NaN,
  /// infinity, overflow; {kUnsupported} for another dtype.
  std::int64_t (*encode)(const SourceRun& run, std::span<std::byte> out);
  /// The matrix as floats, row-major; `out` has rows * cols elements.
  void (*decode)(const WeightView& weight, std::span<float> out);
};

const FormatCodec& codec_of(WeightFormat format);

/// The format that a tensor of a checkpoint gets when nothing else is asked for: bf16 stays bf16, the others
/// become fp16. Throws Error{kUnsupported} naming the tensor for types that are no floating-point numbers.
WeightFormat dense_format_of(DType source, const TensorSpec& tensor);

}  // namespace sluice::kernels
