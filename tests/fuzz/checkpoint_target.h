// What the fuzz targets of the checkpoint containers share.
#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "core/checkpoint/tensor_record.h"
#include "tests/fuzz/fuzz.h"

namespace sluice::fuzz {

/// A broken promise is a crash, which is what a fuzzer reports.
inline void require(bool holds) {
  if (!holds) __builtin_trap();
}

/// note_outcome without what stands in quotes, brackets or hexadecimal: names, shapes and values are the
/// input's own and would all be new outcomes.
inline void note_unquoted(const std::string& message) {
  std::string text;
  char closing = '\0';
  const std::size_t end = std::min(message.size(), message.find("last read:"));  // a JSON parser's quotation
  for (std::size_t i = 0; i < end; ++i) {
    const char c = message[i];
    if (closing != '\0') {
      if (c == closing) closing = '\0';
    } else if (c == '\'' || c == '"' || c == '[') {
      closing = c == '[' ? ']' : c;
    } else if (message.compare(i, 2, "0x") == 0) {
      i += 3;
    } else {
      text.push_back(c);
    }
  }
  note_outcome(text);
}

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
