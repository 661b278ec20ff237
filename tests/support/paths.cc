#include "tests/support/paths.h"

#include <cerrno>
#include <cstdlib>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>

#include <fmt/format.h>
#include <spawn.h>

#include "core/error.h"

namespace sluice::testing {
namespace {

namespace fs = std::filesystem;

fs::path from_environment(const char* name) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): no test sets it
  return value != nullptr ? fs::path(value) : fs::path();
}

fs::path program_dir() { return fs::read_symlink("/proc/self/exe").parent_path(); }

// An archive's content in a temporary folder.
class Unpacked {
 public:
  explicit Unpacked(const fs::path& archive) {
    std::error_code failure;
    std::string folder = (fs::temp_directory_path(failure) / "sluice_tests_XXXXXX").string();
    if (!failure && mkdtemp(folder.data()) == nullptr) failure = {errno, std::generic_category()};
    SLUICE_CHECK(!failure, Code::kIo, fmt::format("no temporary folder: {}", failure.message()),
                 "set TMPDIR to a writable folder");
    folder_ = folder;
    const std::string from = archive.string();
    const char* const command[] = {"tar", "-xzf", from.c_str(), "-C", folder.c_str(), nullptr};
    pid_t child = 0;
    int status = posix_spawnp(&child, "tar", nullptr, nullptr, const_cast<char* const*>(command), environ);
    if (status == 0) waitpid(child, &status, 0);
    SLUICE_CHECK(status == 0, Code::kIo, fmt::format("{}: tar failed with status {}", from, status),
                 "unpack it yourself and set SLUICE_TESTS_DIR to its tests folder");
  }
  ~Unpacked() {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  Unpacked(const Unpacked&) = delete;
  Unpacked& operator=(const Unpacked&) = delete;

  const fs::path& folder() const { return folder_; }

 private:
  fs::path folder_;
};

}  // namespace

fs::path test_dir() {
  if (fs::path dir = from_environment("SLUICE_TESTS_DIR"); !dir.empty()) return dir;
  const fs::path archive = program_dir().parent_path() / "share" / "sluice" / "tests.tar.gz";
  if (!fs::exists(archive)) return SLUICE_TESTS_DIR;
  static const Unpacked unpacked(archive);
  return unpacked.folder() / "tests";
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
