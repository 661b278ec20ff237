// `sluice bench`: the measurements behind the README's figures. Each part is a file of its own.
#include <vector>

#include <CLI/App.hpp>

#include "apps/commands.h"

namespace sluice::apps {

void add_bench_command(CLI::App& app) {
  CLI::App* bench = app.add_subcommand("bench", "Measure this machine and how close Sluice comes to it");
  bench->require_subcommand(1);
  bench->footer("Each figure is a median with its spread; ratios are measured in one run, alternating.");

  // The parts, in the order of --help.
  const std::vector<void (*)(CLI::App&)> parts = {add_bench_io,       add_bench_attention, add_bench_linear,
                                                  add_bench_generate, add_bench_device,    add_bench_formats,
                                                  add_bench_spmm,     add_bench_ragged};
  for (auto add : parts) add(*bench);
}

}  // namespace sluice::apps
