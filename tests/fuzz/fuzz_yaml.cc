// Any text is a configuration that prints and reads back equal, or an Error; the same as a model spec and as
// an override of the command line.
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "core/config/config.h"
#include "core/config/model_config.h"
#include "core/error.h"
#include "tests/core/config/sample_config.h"
#include "tests/fuzz/outcome.h"

namespace sluice {
namespace {

using fuzz::require;

/// Each problem is an outcome, known by its remedy: what stands before quotes the input.
void note_problems(std::string_view message) {
  while (!message.empty()) {
    const std::string_view line = message.substr(0, message.find('\n'));
    message.remove_prefix(std::min(message.size(), line.size() + 1));
    fuzz::note_unquoted(std::string(line.substr(std::min(line.size(), line.rfind("; ")))));
  }
}

template <class Config>
void check(std::string_view text, const std::vector<std::string>& overrides) {
  Config config;
  try {
    apply_config(config, text, "fuzz", overrides);
  } catch (const Error& e) {
    note_problems(e.what());
    require(config == Config{});
    return;
  }
  fuzz::note_outcome("accepted");
  Config again;
  apply_config(again, print_config(config), "printed");
  require(again == config);
}

}  // namespace
}  // namespace sluice

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sluice;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  check<testing::Sample>(text, {});
  check<testing::Sample>("", {std::string(text)});
  try {
    validate(parse_model_config(text, "fuzz"));
    fuzz::note_outcome("a model");
  } catch (const Error& e) {
    note_problems(e.what());
  }
  return 0;
}
