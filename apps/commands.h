// The subcommands of `sluice`. Each adds itself to the command line and runs when chosen: its options are
// parsed into a struct owned by the callback, failures are thrown as Error, and main() maps them to an exit
// status. Results go to stdout, messages to stderr.
#pragma once

namespace CLI {
class App;
}

namespace sluice::apps {

void add_generate_command(CLI::App& app);
void add_convert_command(CLI::App& app);
void add_prune_command(CLI::App& app);
void add_inspect_command(CLI::App& app);
void add_bench_command(CLI::App& app);
void add_profile_command(CLI::App& app);
void add_plan_command(CLI::App& app);
void add_sweep_command(CLI::App& app);

// Parts of `bench`.
void add_bench_io(CLI::App& bench);
void add_bench_attention(CLI::App& bench);
void add_bench_linear(CLI::App& bench);
void add_bench_device(CLI::App& bench);
void add_bench_generate(CLI::App& bench);
void add_bench_formats(CLI::App& bench);
void add_bench_spmm(CLI::App& bench);
void add_bench_ragged(CLI::App& bench);

}  // namespace sluice::apps
