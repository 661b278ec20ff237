// Runs the real program, as a user would.
#pragma once

#include <csignal>
#include <optional>
#include <string>
#include <vector>

namespace sluice::apps {

struct ProgramResult {
  int status = -1;  ///< exit status, or 128 + signal
  std::string out;
  std::string err;
};

/// Runs `sluice` with these arguments to its end. Standard input is `input`.
ProgramResult run_program(const std::vector<std::string>& args, const std::string& input = {});

/// A `sluice` that runs beside the test, its results thrown away.
class RunningProgram {
 public:
  /// Its messages go to the file `err`.
  explicit RunningProgram(const std::vector<std::string>& args, const std::string& err = "/dev/null");
  ~RunningProgram();  ///< kills it if it still runs
  RunningProgram(const RunningProgram&) = delete;
  RunningProgram& operator=(const RunningProgram&) = delete;

  void signal(int number) const;
  /// Waits for its end and returns its status as above.
  int wait();
  bool is_running();

 private:
  pid_t pid_ = -1;
  std::optional<int> status_;
};

}  // namespace sluice::apps
