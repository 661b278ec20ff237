#include "apps/command_line.h"

#include <csignal>
#include <cstdio>
#include <string>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "apps/commands.h"
#include "apps/version.h"
#include "core/error.h"
#include "core/log.h"

namespace sluice::apps {
namespace {

using AddCommand = void (*)(CLI::App&);

// The subcommands, in the order of --help.
constexpr AddCommand kCommands[] = {
    add_generate_command, add_convert_command, add_prune_command, add_inspect_command,
    add_bench_command,    add_profile_command, add_plan_command,  add_sweep_command,
};

void add_global_options(CLI::App& app) {
  app.add_flag_callback(
         "-v,--verbose", [] { set_log_level(LogLevel::kDebug); }, "Say more on stderr (debug messages)")
      ->group("Everywhere");
  app.add_flag_callback(
         "-q,--quiet", [] { set_log_level(LogLevel::kError); }, "Say nothing on stderr but errors")
      ->group("Everywhere");
  app.add_flag_callback(
         "-V,--version",
         [] {
           fmt::print("{}", version_text());
           throw CLI::Success();
         },
         "Print version, commit, build and the devices found, and exit")
      ->group("Everywhere");
}

/// CLI11's own texts ("--foo: 7 not in range", "A subcommand is required") with the next step.
Error to_error(const CLI::ParseError& failure, const CLI::App& app) {
  std::string command = "sluice";
  for (const CLI::App* at = &app; !at->get_subcommands().empty();) {
    at = at->get_subcommands().front();
    command += " " + at->get_name();
  }
  return Error(Code::kInvalidArgument, failure.what(), fmt::format("see '{} --help'", command));
}

int parse_and_run(int argc, const char* const* argv) {
  CLI::App app("Runs language models larger than the GPU, at the highest throughput the machine allows.",
               "sluice");
  app.fallthrough();
  app.option_defaults()->disable_flag_override();  // --switch=false would be taken for not stated
  app.require_subcommand(1);
  app.set_help_flag("-h,--help", "Print this help and exit")->group("Everywhere");
  add_global_options(app);
  for (AddCommand add : kCommands) add(app);
  app.footer("'sluice COMMAND --help' explains a command. Results go to stdout, messages to stderr.");
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {  // --help and --version
    app.exit(success);
  } catch (const CLI::ParseError& failure) {
    throw to_error(failure, app);
  }
  return 0;
}

}  // namespace

int run_command_line(int argc, const char* const* argv) noexcept {
  // A reader that goes away (`sluice ... | head`) is reported as a failed write, not by a signal.
  std::signal(SIGPIPE, SIG_IGN);
  Status failure;
  try {
    return parse_and_run(argc, argv);
  } catch (...) {
    failure = Status::from_current_exception();
  }
  try {
    log_error("{}", failure.message());
  } catch (...) {  // stderr is closed; the exit status still tells
  }
  return exit_status(failure.code());
}

}  // namespace sluice::apps
