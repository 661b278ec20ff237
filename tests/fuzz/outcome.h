// What fuzz targets say of an input: a promise that was broken, or how a refusal reads.
#pragma once

#include <algorithm>
#include <string>

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

}  // namespace sluice::fuzz
