#include "kernels/format/dense/dense.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "kernels/format/tile_table.h"

namespace sluice::kernels {
namespace {

/// Floats that are on their way from one type to another; small enough to stay in L1.
using FloatBlock = std::array<float, 1024>;

template <class T>
const T* elements(std::span<const std::byte> bytes) {
  SLUICE_ASSERT(reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(T) == 0);
  return reinterpret_cast<const T*>(bytes.data());
}
template <class T>
T* elements(std::span<std::byte> bytes) {
  SLUICE_ASSERT(reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(T) == 0);
  return reinterpret_cast<T*>(bytes.data());
}

bool is_finite(Half x) { return (x.bits & 0x7C00U) != 0x7C00U; }
bool is_finite(BFloat16 x) { return (x.bits & 0x7F80U) != 0x7F80U; }

double source_value(const SourceRun& run, std::int64_t i) {
  switch (run.dtype) {
    case DType::kF16:
      return to_float(elements<Half>(run.data)[i]);
    case DType::kBF16:
      return to_float(elements<BFloat16>(run.data)[i]);
    case DType::kF32:
      return elements<float>(run.data)[i];
    default:
      return elements<double>(run.data)[i];
  }
}

/// Only called when a result is not finite, so the search may be slow. `at` is where results [0, count) of
/// the run's elements [offset, offset + count) stand.
template <class Stored>
[[noreturn]] void refuse(const SourceRun& run, std::int64_t offset, const Stored* at, std::int64_t count) {
  const auto* bad = std::find_if(at, at + count, [](Stored x) { return !is_finite(x); });
  const std::int64_t in_run = offset + (bad - at);
  const std::int64_t element = run.first + in_run;
  const double value = source_value(run, in_run);
  const std::string place = fmt::format("tensor {}: row {}, column {}", run.tensor->name,
                                        element / run.tensor->cols, element % run.tensor->cols);
  SLUICE_CHECK(std::isfinite(value), Code::kInvalidArgument,
               fmt::format("{}: {:.9g} is not a finite number", place, value),
               "the checkpoint is damaged, or its training diverged");
  throw Error(Code::kInvalidArgument,
              fmt::format("{}: {:.9g} is beyond the range of {}", place, value,
                          std::is_same_v<Stored, Half> ? "fp16 (65504)" : "bf16"),
              "give a bf16 checkpoint of this model");
}

void widen(const SourceRun& run, std::int64_t offset, std::int64_t count, float* out) {
  switch (run.dtype) {
    case DType::kF16:
      return detail::widen_f16(elements<Half>(run.data) + offset, count, out);
    case DType::kBF16:
      return detail::widen_bf16(elements<BFloat16>(run.data) + offset, count, out);
    case DType::kF64:
      return detail::round_f64(elements<double>(run.data) + offset, count, out);
    default:
      throw Error(
          Code::kUnsupported,
          fmt::format("tensor {}: {} elements cannot be stored", run.tensor->name, dtype_name(run.dtype)),
          "give a checkpoint in fp16, bf16 or fp32");
  }
}

template <class Stored>
std::int64_t encode(const SourceRun& run, std::span<std::byte> out, DType same,
                    bool (*copy)(const Stored*, std::int64_t, Stored*),
                    bool (*narrow)(const float*, std::int64_t, Stored*)) {
  const std::int64_t count = run.count();
  const auto bytes = static_cast<std::size_t>(count) * sizeof(Stored);
  SLUICE_ASSERT(out.size() >= bytes);
  auto* stored = elements<Stored>(out.first(bytes));
  if (run.dtype == same) {
    if (!copy(elements<Stored>(run.data), count, stored)) refuse(run, 0, stored, count);
  } else if (run.dtype == DType::kF32) {
    if (!narrow(elements<float>(run.data), count, stored)) refuse(run, 0, stored, count);
  } else {
    FloatBlock block;
    const auto block_size = static_cast<std::int64_t>(block.size());
    for (std::int64_t i = 0; i < count; i += block_size) {
      const std::int64_t n = std::min(block_size, count - i);
      widen(run, i, n, block.data());
      if (!narrow(block.data(), n, stored + i)) refuse(run, i, stored + i, n);
    }
  }
  return static_cast<std::int64_t>(bytes);
}

}  // namespace

std::int64_t to_stored_values(const SourceRun& run, DType stored, std::span<std::byte> out) {
  if (stored == DType::kF16)
    return encode<Half>(run, out, DType::kF16, detail::copy_f16, detail::narrow_to_f16);
  return encode<BFloat16>(run, out, DType::kBF16, detail::copy_bf16, detail::narrow_to_bf16);
}

std::int64_t dense_row_granule(std::int64_t) { return 1; }
std::int64_t dense_max_run_bytes(std::int64_t num_rows, std::int64_t cols) { return 2 * num_rows * cols; }

std::int64_t encode_dense(const RowRun& run, std::span<std::byte> out, TileSizes&) {
  std::memcpy(out.data(), run.values.data(), run.values.size_bytes());
  return static_cast<std::int64_t>(run.values.size_bytes());
}

void check_dense(const WeightView& weight, const std::string& tensor_name) {
  const std::int64_t expected = weight_bytes(weight.format, weight.rows, weight.cols);
  SLUICE_CHECK(static_cast<std::int64_t>(weight.data.size()) == expected, Code::kCorrupt,
               fmt::format("tensor {}: {} bytes instead of {}", tensor_name, weight.data.size(), expected),
               kDamagedStore);
}

void expand_dense(const WeightView& weight, std::int64_t first_row, std::int64_t num_rows,
                  std::span<std::uint16_t> out) {
  SLUICE_ASSERT(static_cast<std::int64_t>(out.size()) == num_rows * weight.cols);
  std::memcpy(out.data(), weight.data.data() + first_row * weight.cols * 2, out.size_bytes());
}

}  // namespace sluice::kernels
