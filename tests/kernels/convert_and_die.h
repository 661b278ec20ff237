// A conversion that is killed in the middle, as by a power cut.
#pragma once

#include <csignal>
#include <filesystem>
#include <sys/wait.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "kernels/format/convert.h"

namespace sluice::testing {

/// Converts in a process of its own that dies at its `stage`-th piece. False if it came to the end.
inline bool convert_and_die(const std::filesystem::path& model, const std::filesystem::path& store, int stage,
                            const kernels::SourceOptions& source = {}) {
  const pid_t child = ::fork();
  if (child == 0) {
    kernels::ConvertOptions options;
    options.source = source;
    options.progress = [&](const kernels::ConvertProgress&) {
      if (stage-- == 0) ::raise(SIGKILL);
    };
    kernels::convert_checkpoint(model, store, options);
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
  return WIFSIGNALED(status);
}

}  // namespace sluice::testing
