// The main() of every fuzz target where libFuzzer is not used: runs the seeds, then mutations of them for a
// time, in a child process. The child keeps the current input in shared memory, so that the parent can save
// it and say how to reproduce whatever ended the child: a signal, a sanitizer, an exception, a hang, a spike.
//
//   target --seeds DIR [--seconds 5] [--seed 1]     fuzz (SLUICE_FUZZ_SECONDS, SLUICE_FUZZ_SEED set the
//   defaults) target FILE...                                  run these inputs in this process, for a
//   debugger
#include <algorithm>
#include <atomic>
#include <cctype>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "core/build_config.h"
#include "core/error.h"
#include "core/units.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/mutator.h"

namespace sluice::fuzz {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

struct Options {
  std::vector<std::string> files;
  std::vector<std::string> seed_dirs;
  std::string dictionary;
  double seconds = 5;
  std::uint64_t seed = 1;
  std::int64_t max_bytes = 64_KiB;
  double hang_sec = 20;
  std::int64_t rss_mib = 1024;
  bool print_outcomes = false;
};

// Written by the child, read by the parent.
struct Shared {
  std::atomic<std::uint64_t> inputs{0};
  std::atomic<std::int64_t> started{0};  ///< Clock ticks at which the current input began
  std::atomic<bool> finished{false};
  std::atomic<std::int64_t> size{0};  ///< bytes of the current input, which follow this struct
  char failure[1024] = {};
  std::uint8_t* input() { return reinterpret_cast<std::uint8_t*>(this + 1); }
};

std::set<std::string> g_outcomes;
bool g_new_outcome = false;

Bytes read_bytes(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  SLUICE_CHECK(in.good(), Code::kIo, fmt::format("{}: cannot be opened", path.string()), "check the path");
  return Bytes(std::istreambuf_iterator<char>(in), {});
}

std::vector<Bytes> read_seeds(const Options& options) {
  std::vector<fs::path> paths;
  for (const std::string& dir : options.seed_dirs) {
    for (const auto& entry : fs::recursive_directory_iterator(dir)) {
      if (entry.is_regular_file()) paths.push_back(entry.path());
    }
  }
  std::sort(paths.begin(), paths.end());
  SLUICE_CHECK(!paths.empty(), Code::kNotFound, "no seed inputs", "name a folder of them with --seeds");
  std::vector<Bytes> seeds;
  for (const fs::path& path : paths) {
    seeds.push_back(read_bytes(path));
    SLUICE_CHECK(
        static_cast<std::int64_t>(seeds.back().size()) <= options.max_bytes, Code::kInvalidArgument,
        fmt::format("{}: {} bytes, more than {}", path.string(), seeds.back().size(), options.max_bytes),
        "raise --max-bytes or shrink the seed");
  }
  return seeds;
}

std::int64_t peak_rss_mib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss / 1024;
}

// Runs one input; ends the child with a message in `shared` if it throws or takes too much memory.
void run_one(Shared& shared, const Bytes& input, const Options& options) {
  std::copy(input.begin(), input.end(), shared.input());
  shared.size = static_cast<std::int64_t>(input.size());
  shared.started = Clock::now().time_since_epoch().count();
  const auto fail = [&](const std::string& text) {
    text.copy(shared.failure, sizeof(shared.failure) - 1);
    _exit(1);
  };
  // A heap copy of the exact size, so that a sanitizer sees the first byte read past the end.
  const Bytes exact(input.begin(), input.end());
  try {
    LLVMFuzzerTestOneInput(exact.data(), exact.size());
  } catch (const std::exception& e) {
    fail(fmt::format("an exception left the target: {}", e.what()));
  } catch (...) {
    fail("an exception of unknown type left the target");
  }
  ++shared.inputs;
  if (peak_rss_mib() > options.rss_mib) {
    fail(fmt::format("peak memory {} MiB, more than {} MiB", peak_rss_mib(), options.rss_mib));
  }
}

[[noreturn]] void run_child(Shared& shared, const Options& options, std::vector<Bytes> corpus,
                            std::vector<Bytes> dictionary) {
  if (kSanitize.empty()) {
    // An absurd reservation fails as bad_alloc even where the kernel would promise the memory.
    const rlim_t bytes = static_cast<rlim_t>(options.rss_mib) * 4 << 20;
    const rlimit limit{bytes, bytes};
    setrlimit(RLIMIT_AS, &limit);
  }
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);

  const std::size_t num_seeds = corpus.size();
  run_one(shared, {}, options);
  for (const Bytes& seed : corpus) run_one(shared, seed, options);
  const std::size_t seed_outcomes = g_outcomes.size();

  Mutator mutator(options.seed, static_cast<std::size_t>(options.max_bytes), std::move(dictionary));
  const auto until = Clock::now() + std::chrono::duration<double>(options.seconds);
  while (Clock::now() < until) {
    Bytes input = mutator.next(corpus);
    g_new_outcome = false;
    run_one(shared, input, options);
    if (g_new_outcome) corpus.push_back(std::move(input));
  }
  shared.size = 0;
  shared.finished = true;
  fmt::print("seed {}: {} inputs in {} s from {} seeds; outcomes {} from the seeds, {} in all; peak {} MiB\n",
             options.seed, shared.inputs.load(), options.seconds, num_seeds, seed_outcomes, g_outcomes.size(),
             peak_rss_mib());
  if (options.print_outcomes) {
    for (const std::string& outcome : g_outcomes) fmt::print("  {}\n", outcome);
  }
  std::exit(0);  // not _exit: a leak checker runs here
}

// Waits for the child; returns what went wrong with it, or nothing.
std::string watch(pid_t child, Shared& shared, const Options& options) {
  const auto hang =
      std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(options.hang_sec));
  shared.started = Clock::now().time_since_epoch().count();
  for (;;) {
    int status = 0;
    if (waitpid(child, &status, WNOHANG) == child) {
      if (WIFSIGNALED(status))
        return fmt::format("signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status)));
      if (shared.failure[0] != 0) return shared.failure;
      if (WEXITSTATUS(status) != 0) return fmt::format("exit status {}", WEXITSTATUS(status));
      if (!shared.finished) return "the target ended the process";
      return "";
    }
    const Clock::duration now = Clock::now().time_since_epoch();
    if (!shared.finished && now.count() - shared.started.load() > hang.count()) {
      kill(child, SIGKILL);
      waitpid(child, &status, 0);
      return fmt::format("one input took more than {} s", options.hang_sec);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

std::string save_input(Shared& shared, const std::string& target) {
  const Bytes input(shared.input(), shared.input() + shared.size.load());
  const std::size_t hash =
      std::hash<std::string_view>{}({reinterpret_cast<const char*>(input.data()), input.size()});
  const fs::path path =
      fs::absolute(fmt::format("{}-{:016x}.bin", fs::path(target).filename().string(), hash));
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(input.data()), static_cast<std::streamsize>(input.size()));
  return path.string();
}

int fuzz(const Options& options, const std::string& target) {
  std::vector<Bytes> corpus = read_seeds(options);
  std::vector<Bytes> dictionary;
  if (!options.dictionary.empty()) {
    const Bytes text = read_bytes(options.dictionary);
    dictionary = parse_dictionary(std::string(text.begin(), text.end()));
  }
  const std::size_t shared_bytes = sizeof(Shared) + static_cast<std::size_t>(options.max_bytes);
  void* memory = mmap(nullptr, shared_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  SLUICE_CHECK(memory != MAP_FAILED, Code::kOutOfMemory, fmt::format("mmap of {} bytes failed", shared_bytes),
               "");
  Shared& shared = *new (memory) Shared;

  std::fflush(nullptr);
  const pid_t child = fork();
  SLUICE_CHECK(child >= 0, Code::kIo, fmt::format("fork: {}", std::strerror(errno)), "");
  if (child == 0) run_child(shared, options, std::move(corpus), std::move(dictionary));
  const std::string failure = watch(child, shared, options);
  if (failure.empty()) return 0;
  if (shared.finished) {
    fmt::print(stderr, "FAILED after the last input (a leak?): {}\n", failure);
    return 1;
  }
  const std::string path = save_input(shared, target);
  fmt::print(stderr,
             "FAILED at input {} of seed {}: {}\nThe input ({} bytes) is saved. Reproduce with:\n  {} {}\n",
             shared.inputs.load(), options.seed, failure, shared.size.load(), target, path);
  return 1;
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app("Fuzzes one parser");
  app.add_option("files", options.files, "run these inputs only, in this process");
  app.add_option("--seeds", options.seed_dirs, "folders of seed inputs");
  app.add_option("--dict", options.dictionary, "tokens of the format, in libFuzzer's dictionary syntax");
  app.add_option("--seconds", options.seconds, "how long to mutate")->envname("SLUICE_FUZZ_SECONDS");
  app.add_option("--seed", options.seed, "of the mutations")->envname("SLUICE_FUZZ_SEED");
  app.add_option("--max-bytes", options.max_bytes, "largest input");
  app.add_option("--hang-sec", options.hang_sec, "longest time for one input");
  app.add_option("--rss-mib", options.rss_mib, "largest resident size");
  app.add_flag("--print-outcomes", options.print_outcomes, "list the distinct outcomes seen");
  CLI11_PARSE(app, argc, argv);
  if (options.files.empty()) return fuzz(options, fs::absolute(argv[0]).string());
  for (const std::string& file : options.files) {
    const Bytes input = read_bytes(file);
    LLVMFuzzerTestOneInput(input.data(), input.size());
    fmt::print("{}: passed\n", file);
  }
  return 0;
}

}  // namespace

void note_outcome(std::string_view outcome) {
  std::string key(outcome);
  std::erase_if(key, [](unsigned char c) { return std::isdigit(c) != 0; });
  g_new_outcome |= g_outcomes.insert(std::move(key)).second;
}

}  // namespace sluice::fuzz

int main(int argc, char** argv) {
  try {
    return sluice::fuzz::run(argc, argv);
  } catch (const std::exception& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 2;
  }
}
