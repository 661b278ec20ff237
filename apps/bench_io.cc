// `sluice bench io`: how close block I/O comes to what the disk gives a plain loop of large transfers.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include <CLI/App.hpp>
#include <fmt/format.h>

#include "apps/commands.h"
#include "apps/raw_disk.h"
#include "core/build_config.h"
#include "core/error.h"
#include "core/log.h"
#include "core/units.h"
#include "offload/io/block_io.h"
#include "offload/io/disk_dir.h"
#include "offload/memory/arena.h"

namespace sluice::apps {
namespace {

using offload::BlockIo;
using offload::FileId;
using offload::FileMode;
using offload::IoOp;

constexpr std::int64_t kRequestsInFlight = 8;
constexpr double kReaderTarget = 0.95;

struct BenchIoFlags {
  std::string file;
  std::string disk_dir;
  std::string size = "4GiB";
  int repeats = 7;
  bool write = false;
  offload::BlockIoOptions io;
  std::string piece = format_bytes(offload::BlockIoOptions{}.piece_bytes);
  bool threads = false;
};

/// Random words: some disks compress, and zeros would be too fast.
void fill_random(std::span<std::byte> memory) {
  std::mt19937_64 random(20240229);
  for (std::size_t i = 0; i + 8 <= memory.size(); i += 8) {
    const std::uint64_t word = random();
    std::memcpy(memory.data() + i, &word, sizeof word);
  }
}

/// Rates of one contender over the rounds, in bytes/s.
struct Rates {
  std::vector<double> values;
  double median() const {
    std::vector<double> sorted = values;
    std::sort(sorted.begin(), sorted.end());
    const std::size_t middle = sorted.size() / 2;
    return sorted.size() % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  }
  std::string text() const {
    const auto [low, high] = std::minmax_element(values.begin(), values.end());
    return fmt::format("{:6.3f} GB/s  ({:.3f} to {:.3f})", median() / 1e9, *low / 1e9, *high / 1e9);
  }
};

/// The file to measure on: the user's, kept, or one of our own, removed at the end.
class BenchFile {
 public:
  explicit BenchFile(const BenchIoFlags& options)
      : bytes_(parse_bytes(options.size, "--size") / kPageAlign * kPageAlign) {
    if (options.file.empty()) {
      dir_.emplace(options.disk_dir);
      path_ = dir_->path() / "bench";
      return;
    }
    path_ = options.file;
    existed_ = std::filesystem::exists(path_);
    if (!existed_) return;
    SLUICE_CHECK(!options.write, Code::kInvalidArgument,
                 fmt::format("{}: exists, and --write would overwrite it", options.file),
                 "name a file that does not exist yet");
    bytes_ = static_cast<std::int64_t>(std::filesystem::file_size(path_)) / kPageAlign * kPageAlign;
  }
  /// Writes the file unless it was there. `memory` is random.
  void prepare(BlockIo& io, FileId file, std::span<std::byte> memory) const {
    SLUICE_CHECK(bytes_ > 0, Code::kInvalidArgument, fmt::format("{}: holds no whole block", path_.string()),
                 "name a larger file, or raise --size");
    if (existed_) return;
    log_info("writing {} of random bytes to {}", format_bytes(bytes_), path_.string());
    block_io_bytes_per_sec(io, file, IoOp::kWrite, bytes_, memory);
  }
  const std::filesystem::path& path() const { return path_; }
  std::int64_t bytes() const { return bytes_; }
  FileMode mode() const { return existed_ ? FileMode::kRead : FileMode::kReadWriteCreate; }

 private:
  std::optional<offload::DiskDir> dir_;
  std::filesystem::path path_;
  std::int64_t bytes_ = 0;
  bool existed_ = false;
};

void run_bench(const BenchIoFlags& options) {
  SLUICE_CHECK(kBuildType != "Debug" && kSanitize.empty(), Code::kUnsupported,
               "a debug or sanitizer build measures nothing", "build with the preset cpu");
  const IoOp op = options.write ? IoOp::kWrite : IoOp::kRead;
  offload::BlockIoOptions io_options = options.io;
  io_options.piece_bytes = parse_bytes(options.piece, "--piece");
  io_options.allow_uring = !options.threads;

  const std::int64_t memory_bytes = kIoRequestBytes * kRequestsInFlight;
  offload::MemoryBudget budget(PerTier<std::int64_t>{{0, memory_bytes, 0}});
  offload::Arena arena(budget.reserve(Tier::kCpu, memory_bytes, "bench io"), 1);
  const auto memory = arena.take(memory_bytes, "requests");
  fill_random(memory);

  const BenchFile target(options);
  const auto io = offload::make_block_io(io_options);
  io->register_memory(memory);
  const FileId file = io->open(target.path(), target.mode());
  target.prepare(*io, file, memory);

  log_info("looking for the best plain loop");
  const RawLoop loop =
      best_raw_loop(target.path(), op, std::min<std::int64_t>(target.bytes(), 1_GiB), memory);
  Rates plain, block, ratio;
  for (int round = 0; round < options.repeats; ++round) {
    const auto run_plain = [&] {
      plain.values.push_back(raw_bytes_per_sec(target.path(), op, 0, target.bytes(), loop, memory));
    };
    const auto run_block = [&] {
      block.values.push_back(block_io_bytes_per_sec(*io, file, op, target.bytes(), memory));
    };
    // Each goes first in every second round: a disk may be faster or slower after a rest.
    if (round % 2 == 0) {
      run_plain();
      run_block();
    } else {
      run_block();
      run_plain();
    }
    ratio.values.push_back(block.values.back() / plain.values.back());
    log_info("round {} of {}: plain {:.3f}, block I/O {:.3f} GB/s", round + 1, options.repeats,
             plain.values.back() / 1e9, block.values.back() / 1e9);
  }
  fmt::print("disk {} of {}, {}, median of {} (lowest to highest)\n", options.write ? "write" : "read",
             target.path().string(), format_bytes(target.bytes()), options.repeats);
  fmt::print("  plain loop  {}  {} threads, blocks of {}, O_DIRECT\n", plain.text(), loop.num_threads,
             format_bytes(loop.block_bytes));
  fmt::print("  block I/O   {}  {}\n", block.text(), io->description());
  fmt::print("  ratio       {:6.1f} %     (target {:.0f} %: {})\n", 100 * ratio.median(), 100 * kReaderTarget,
             ratio.median() >= kReaderTarget ? "reached" : "missed");
}

}  // namespace

void add_bench_io(CLI::App& bench) {
  auto options = std::make_shared<BenchIoFlags>();
  CLI::App* command =
      bench.add_subcommand("io", "Block I/O against a plain loop of large O_DIRECT transfers");
  command->add_option(
      "--file", options->file,
      "File to measure on; made with --size if it does not exist, and kept (default: a file of "
      "its own in --disk-dir, removed at the end)");
  command->add_option("--disk-dir", options->disk_dir,
                      "Folder for that file (default: the temporary folder)");
  command->add_option("--size", options->size, "Size of a new file")->capture_default_str();
  command->add_option("--repeats", options->repeats, "Rounds")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_flag("--write", options->write, "Measure writes; refuses to overwrite a file that exists");
  command->add_option("--queue-depth", options->io.queue_depth, "Pieces in flight")->capture_default_str();
  command->add_option("--piece", options->piece, "Bytes of a piece")->capture_default_str();
  command->add_flag("--io-threads", options->threads, "Use the pool of threads instead of io_uring");
  command->callback([options] { run_bench(*options); });
  command->footer(
      "Example: sluice bench io --disk-dir /mnt/nvme --size 16GiB\n"
      "The plain loop's queue depth and block size are the best of several on this disk. Both contenders\n"
      "land in the same 256 MiB of memory.");
}

}  // namespace sluice::apps
