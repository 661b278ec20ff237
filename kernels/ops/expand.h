// Expansion of a stored weight: the contract. No device types.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "core/units.h"
#include "kernels/device/stream.h"
#include "kernels/format/weight_view.h"

namespace sluice::kernels {

/// out = rows [first_row, first_row + num_rows) of the weight as 16-bit values of its format's type.
///
/// Shapes    out [num_rows, weight.cols] row-major without padding. first_row is a multiple of the format's
///           row granule (kernels/format/format.h), and so is num_rows unless the rows end the matrix. On
///           CUDA the weight's bytes and out start at multiples of 16.
///
/// Values    Exactly those that the format's codec gives, on every device.
struct ExpandArgs {
  WeightView weight = {};
  std::int64_t first_row = 0, num_rows = 0;
  std::span<std::byte> out = {};
};

std::string why_unsupported(const ExpandArgs& args, DeviceKind kind);
void expand(const ExpandArgs& args, Stream& stream);

/// A product over a weight that is not dense expands slices of its rows, of at most so many bytes. On CUDA
/// they do not fit L2: what each launch costs is more than L2 saves (kernels/format/KERNELS.md).
constexpr std::int64_t expanded_slice_bytes(DeviceKind kind) {
  return kind == DeviceKind::kCuda ? 400_MiB : 24_MiB;
}
/// Rows of slices of at most `bytes`: a multiple of 128 and of the granule, at least one, chosen so that
/// slices are about equal.
std::int64_t expanded_slice_rows(WeightFormat format, std::int64_t rows, std::int64_t cols,
                                 std::int64_t bytes);
/// Scratch that a product over the weight wants, 0 for a dense one: a slice, or on CUDA two, of which one is
/// filled while the other is read. With less it makes smaller slices.
std::int64_t expansion_bytes(WeightFormat format, std::int64_t rows, std::int64_t cols, DeviceKind kind);

}  // namespace sluice::kernels
