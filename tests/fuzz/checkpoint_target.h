// What the fuzz targets of the checkpoint containers share.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "core/checkpoint/tensor_record.h"
#include "tests/fuzz/outcome.h"

namespace sluice::fuzz {

/// Every tensor that `read_header` finds can be read: its beginning, its end and one element.
template <class ReadHeader>
void check_container(const std::uint8_t* data, std::size_t size, ReadHeader read_header) {
  MemorySource source(std::as_bytes(std::span(data, size)), "fuzz");
  try {
    const std::vector<TensorRecord> records = read_header(source);
    for (const TensorRecord& record : records) {
      const std::int64_t elements = record.tensor.num_elements();
      const std::int64_t width = dtype_bytes(record.tensor.dtype);
      require(elements >= 0 && record.tensor.num_bytes == elements * width);
      const std::int64_t count = std::min<std::int64_t>(elements, 1000);
      std::vector<std::byte> out(static_cast<std::size_t>(count * width));
      read_elements(source, record.tensor, record.place, 0, count, out);
      read_elements(source, record.tensor, record.place, elements - count, count, out);
      note_outcome(record.place.strides.empty() ? "a tensor" : "a strided tensor");
    }
    note_outcome("a container");
  } catch (const Error& e) {
    require(e.code() == Code::kCorrupt || e.code() == Code::kUnsupported);
    note_unquoted(e.what());
  }
}

}  // namespace sluice::fuzz
