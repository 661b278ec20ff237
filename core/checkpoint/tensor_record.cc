#include "core/checkpoint/tensor_record.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "core/units.h"

namespace sluice {
namespace {

constexpr std::int64_t kWindowBytes = 16_MiB;

/// A stretch of the request along the last dimension: `count` elements from storage element `start`.
struct Run {
  std::int64_t start = 0;
  std::int64_t count = 0;
  std::int64_t out_index = 0;  ///< of its first element, counted from the request's first
};

/// Calls visit(Run) for every row, or part of a row, of the request.
template <class Visit>
void for_each_run(std::span<const std::int64_t> shape, std::span<const std::int64_t> strides,
                  std::int64_t first, std::int64_t count, Visit visit) {
  const std::int64_t inner = shape.back();
  for (std::int64_t done = 0; done < count;) {
    const std::int64_t column = (first + done) % inner;
    std::int64_t row = (first + done) / inner;
    std::int64_t start = column * strides.back();
    for (std::size_t d = shape.size() - 1; d-- > 0;) {
      start += row % shape[d] * strides[d];
      row /= shape[d];
    }
    const std::int64_t length = std::min(inner - column, count - done);
    visit(Run{start, length, done});
    done += length;
  }
}

// Reads the touched stretch of the storage window by window and takes from each window what lies in it, so
// that the file is read forwards once however the strides run.
void read_strided(ByteSource& source, const CheckpointTensor& tensor, const TensorPlace& place,
                  std::int64_t first, std::int64_t count, std::span<std::byte> out) {
  const std::int64_t width = dtype_bytes(tensor.dtype);
  const std::int64_t stride = place.strides.back();
  std::int64_t low = std::numeric_limits<std::int64_t>::max();
  std::int64_t high = 0;
  for_each_run(tensor.shape, place.strides, first, count, [&](const Run& run) {
    low = std::min(low, run.start);
    high = std::max(high, run.start + (run.count - 1) * stride);
  });

  const std::int64_t window = std::min(kWindowBytes / width, high - low + 1);
  std::vector<std::byte> buffer(static_cast<std::size_t>(window * width));
  for (std::int64_t begin = low; begin <= high; begin += window) {
    const std::int64_t end = std::min(begin + window, high + 1);  // storage elements [begin, end)
    source.read_at(place.data_offset + begin * width,
                   std::span(buffer).first(static_cast<std::size_t>((end - begin) * width)));
    for_each_run(tensor.shape, place.strides, first, count, [&](const Run& run) {
      std::int64_t from = 0;  // elements [from, to) of the run lie in the window
      std::int64_t to = run.count;
      if (stride == 0) {
        if (run.start < begin || run.start >= end) return;
      } else {
        if (begin > run.start) from = div_up(begin - run.start, stride);
        to = end > run.start ? std::min(run.count, div_up(end - run.start, stride)) : 0;
      }
      if (from >= to) return;
      const std::byte* in = buffer.data() + (run.start + from * stride - begin) * width;
      std::byte* to_out = out.data() + (run.out_index + from) * width;
      if (stride == 1) {
        std::memcpy(to_out, in, static_cast<std::size_t>((to - from) * width));
        return;
      }
      for (std::int64_t j = from; j < to; ++j, in += stride * width, to_out += width) {
        std::memcpy(to_out, in, static_cast<std::size_t>(width));
      }
    });
  }
}

}  // namespace

std::optional<std::int64_t> checked_elements(std::span<const std::int64_t> shape, DType dtype) {
  // Sizes before a zero may overflow alone; torch and numpy refuse such shapes too.
  std::int64_t elements = 1;
  for (const std::int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(elements, size, &elements)) return std::nullopt;
  }
  std::int64_t bytes = 0;
  if (__builtin_mul_overflow(elements, dtype_bytes(dtype), &bytes)) return std::nullopt;
  return elements;
}

std::string shape_text(std::span<const std::int64_t> shape) {
  std::string text = "[";
  for (const std::int64_t size : shape) text += fmt::format("{}{}", text.size() > 1 ? ", " : "", size);
  return text + "]";
}

std::int64_t CheckpointTensor::num_elements() const {
  std::int64_t elements = 1;
  for (const std::int64_t size : shape) elements *= size;
  return elements;
}

void read_elements(ByteSource& source, const CheckpointTensor& tensor, const TensorPlace& place,
                   std::int64_t first, std::int64_t count, std::span<std::byte> out) {
  const std::int64_t width = dtype_bytes(tensor.dtype);
  const std::int64_t elements = tensor.num_elements();
  SLUICE_ASSERT(first >= 0 && count >= 0 && first <= elements && count <= elements - first);
  SLUICE_ASSERT(static_cast<std::int64_t>(out.size()) == count * width);
  if (count == 0) return;
  if (place.strides.empty()) {
    source.read_at(place.data_offset + first * width, out);
  } else {
    read_strided(source, tensor, place, first, count, out);
  }
}

}  // namespace sluice
