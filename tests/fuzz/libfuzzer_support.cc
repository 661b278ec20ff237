// Replaces driver.cc where libFuzzer, which brings its own main(), drives the targets.
#include "tests/fuzz/fuzz.h"

namespace sluice::fuzz {

void note_outcome(std::string_view) {}

}  // namespace sluice::fuzz
