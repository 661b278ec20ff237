// Where tests find their files and the program. Thread-safe.
//
// The environment decides first (SLUICE_TESTS_DIR, SLUICE_BINARY, SLUICE_DATA); then, in an installed folder,
// the place beside this program (its archive of test files is unpacked into a temporary folder, removed at
// exit); then the source and build trees.
#pragma once

#include <filesystem>

namespace sluice::testing {

/// The tests/ folder. Throws Error{kIo} if an installed archive cannot be unpacked.
std::filesystem::path test_dir();

/// A bundled checkpoint or reference output, named by its path below tests/golden/.
std::filesystem::path golden(const std::filesystem::path& name);

/// The `sluice` program.
std::filesystem::path sluice_binary();

/// Optional larger data, `shared/data` beside the repository by default. It may not exist.
std::filesystem::path data_dir();

}  // namespace sluice::testing
