#include <filesystem>

#include <gtest/gtest.h>

#include "tests/support/paths.h"

namespace sluice::testing {
namespace {

// Runs in the build tree, and by check_install.sh in a folder that was installed and moved.
TEST(InstalledFiles, AreFoundBesideTheProgram) {
  EXPECT_TRUE(std::filesystem::exists(golden("tiny-opt-books-sparse80/model.safetensors"))) << test_dir();
  EXPECT_TRUE(std::filesystem::exists(sluice_binary())) << sluice_binary();
}

}  // namespace
}  // namespace sluice::testing
