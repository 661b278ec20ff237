// A target with one fault of each kind, chosen by the letter in front of "_fault": the driver must report
// all.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <stdexcept>
#include <string_view>
#include <thread>
#include <vector>

#include "core/error.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  sluice::fuzz::note_outcome(size > 4 ? "long" : "short");
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  switch (text.substr(std::min<std::size_t>(size, 1)) == "_fault" ? text[0] : '\0') {
    case 'A':
      std::abort();
    case 'X':
      throw std::runtime_error("escaped");
    case 'H':
      for (;;) std::this_thread::sleep_for(std::chrono::seconds(1));
    case 'M': {
      std::vector<char> spike(std::size_t{200} << 20, 'x');
      sluice::fuzz::note_outcome({spike.data(), 1});
      return 0;
    }
    case 'E':
      std::_Exit(0);
    default:
      return 0;
  }
}
