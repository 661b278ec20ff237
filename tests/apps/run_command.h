// Runs a command of `sluice` inside the test.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "apps/command_line.h"

namespace sluice::apps {

struct Outcome {
  int status = 0;
  std::string out, err;
};

inline Outcome run(std::vector<std::string> words) {
  words.insert(words.begin(), "sluice");
  std::vector<const char*> argv;
  for (const std::string& word : words) argv.push_back(word.c_str());
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  Outcome outcome;
  outcome.status = run_command_line(static_cast<int>(argv.size()), argv.data());
  std::fflush(stdout);
  outcome.out = ::testing::internal::GetCapturedStdout();
  outcome.err = ::testing::internal::GetCapturedStderr();
  return outcome;
}

}  // namespace sluice::apps
