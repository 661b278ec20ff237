#include "tests/support/paths.h"

#include <cstdlib>

namespace sluice::testing {
namespace {

namespace fs = std::filesystem;

fs::path from_environment(const char* name) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): no test sets it
  return value != nullptr ? fs::path(value) : fs::path();
}

fs::path program_dir() { return fs::read_symlink("/proc/self/exe").parent_path(); }

}  // namespace

fs::path test_dir() {
  if (fs::path dir = from_environment("SLUICE_TESTS_DIR"); !dir.empty()) return dir;
  const fs::path installed = program_dir().parent_path() / "share" / "sluice" / "tests";
  return fs::exists(installed) ? installed : fs::path(SLUICE_TESTS_DIR);
}

fs::path golden(const fs::path& name) { return test_dir() / "golden" / name; }

fs::path sluice_binary() {
  if (fs::path binary = from_environment("SLUICE_BINARY"); !binary.empty()) return binary;
  const fs::path installed = program_dir() / "sluice";
  return fs::exists(installed) ? installed : fs::path(SLUICE_BINARY);
}

fs::path data_dir() {
  if (fs::path dir = from_environment("SLUICE_DATA"); !dir.empty()) return dir;
  return test_dir().parent_path().parent_path() / "shared" / "data";
}

}  // namespace sluice::testing
