#include "tests/apps/program.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <spawn.h>

#include "tests/apps/temp_dir.h"
#include "tests/support/paths.h"

extern char** environ;

namespace sluice::apps {
namespace {

struct Files {
  std::string in = "/dev/null", out = "/dev/null", err = "/dev/null";
};

pid_t start(const std::vector<std::string>& args, const Files& files) {
  const std::string program = testing::sluice_binary().string();
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const std::string& arg : args) argv.push_back(const_cast<char*>(arg.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, files.in.c_str(), O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, files.out.c_str(), O_WRONLY | O_CREAT, 0600);
  posix_spawn_file_actions_addopen(&actions, 2, files.err.c_str(), O_WRONLY | O_CREAT, 0600);
  pid_t pid = -1;
  EXPECT_EQ(posix_spawn(&pid, program.c_str(), &actions, nullptr, argv.data(), environ), 0) << program;
  posix_spawn_file_actions_destroy(&actions);
  return pid;
}

int exit_status_of(int wait_status) {
  return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
}

}  // namespace

ProgramResult run_program(const std::vector<std::string>& args, const std::string& input) {
  const TempDir dir;
  write_text(dir / "in", input);
  const pid_t pid = start(args, {.in = dir / "in", .out = dir / "out", .err = dir / "err"});
  int status = 0;
  EXPECT_EQ(waitpid(pid, &status, 0), pid);
  return {exit_status_of(status), read_text(dir / "out"), read_text(dir / "err")};
}

RunningProgram::RunningProgram(const std::vector<std::string>& args, const std::string& err)
    : pid_(start(args, {.err = err})) {}

RunningProgram::~RunningProgram() {
  if (!is_running()) return;
  signal(SIGKILL);
  wait();
}

void RunningProgram::signal(int number) const { EXPECT_EQ(kill(pid_, number), 0); }

int RunningProgram::wait() {
  int status = 0;
  if (!status_ && waitpid(pid_, &status, 0) == pid_) status_ = exit_status_of(status);
  return status_.value_or(-1);
}

bool RunningProgram::is_running() {
  int status = 0;
  if (!status_ && waitpid(pid_, &status, WNOHANG) == pid_) status_ = exit_status_of(status);
  return !status_;
}

}  // namespace sluice::apps
