// What tests of `sluice generate` through the program itself share: a trained model's store, and words.
#pragma once

#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/apps/program.h"
#include "tests/apps/temp_dir.h"
#include "tests/support/paths.h"

namespace sluice::apps {

inline std::vector<std::string> operator+(std::vector<std::string> a, const std::vector<std::string>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

inline std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

class GenerateTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    suite_dir = std::make_unique<TempDir>();
    const ProgramResult result =
        run_program({"convert", testing::golden("tiny-opt-books-sparse80").string(), *suite_dir / "store"});
    ASSERT_EQ(result.status, 0) << result.err;
  }
  static void TearDownTestSuite() { suite_dir.reset(); }

  static std::vector<std::string> generate() { return {"generate", "-q", "--model", *suite_dir / "store"}; }
  ProgramResult run(const std::vector<std::string>& args, const std::string& input = {}) const {
    return run_program(generate() + args, input);
  }
  static int status_of(Code code) { return exit_status(code); }

  static inline std::unique_ptr<TempDir> suite_dir;
  const TempDir dir_;
};

}  // namespace sluice::apps
