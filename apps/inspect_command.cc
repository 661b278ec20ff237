// `sluice inspect PATH`: what a store or a checkpoint holds, and whether its bytes are still those written.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <CLI/App.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include "apps/convert_progress.h"
#include "apps/interrupt.h"
#include "core/checkpoint/reader.h"
#include "core/error.h"
#include "core/log.h"
#include "core/model/hf_config.h"
#include "core/store/checksum.h"
#include "core/store/manifest.h"
#include "core/store/read_tensor.h"
#include "core/store/spec_json.h"
#include "core/units.h"

namespace sluice::apps {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

struct InspectFlags {
  std::string path;
  bool verify = false, json = false;
};

/// One line of the table.
struct Row {
  std::string name;
  std::vector<std::int64_t> shape;
  std::string format;  ///< stored format or element type
  std::int64_t bytes = 0;
  std::string file;
  std::int64_t offset = 0;
  std::string checksum;  ///< empty for checkpoints, and then the rest does not count
  double sparsity = 0;   ///< share of zeros
  double bytes_per_weight = 0;
  double error = 0;  ///< relative, of what the format decodes to
};

struct Contents {
  std::string kind;  ///< "store" or "checkpoint"
  std::optional<ModelSpec> spec;
  std::vector<std::string> tokenizer_files;
  std::string source;
  std::vector<Row> rows;
};

Contents contents_of(const Manifest& manifest) {
  Contents contents{"store", manifest.spec, manifest.tokenizer_files, manifest.source.text, {}};
  for (const StoredTensor& tensor : manifest.tensors) {
    std::vector<std::int64_t> shape = {tensor.spec.cols};
    if (!tensor.spec.is_vector) shape.insert(shape.begin(), tensor.spec.rows);
    const auto elements = static_cast<double>(tensor.spec.rows * tensor.spec.cols);
    contents.rows.push_back(
        {tensor.spec.name, std::move(shape), std::string(weight_format_name(tensor.format)), tensor.bytes,
         manifest.files[static_cast<std::size_t>(tensor.file)], tensor.offset,
         fmt::format("{:016x}", tensor.checksum), static_cast<double>(tensor.stats.zeros) / elements,
         static_cast<double>(tensor.bytes) / elements, tensor.stats.error});
  }
  return contents;
}

Contents contents_of_checkpoint(const fs::path& path) {
  Contents contents{"checkpoint", std::nullopt, {}, "", {}};
  const std::unique_ptr<CheckpointReader> reader = open_checkpoint(path);
  for (const CheckpointTensor& tensor : reader->tensors()) {
    contents.rows.push_back({tensor.name, tensor.shape, std::string(dtype_name(tensor.dtype)),
                             tensor.num_bytes, tensor.file.filename().string(), tensor.file_offset, "", 0, 0,
                             0});
  }
  const fs::path config = (fs::is_directory(path) ? path : path.parent_path()) / "config.json";
  if (fs::is_regular_file(config)) contents.spec = read_hf_config(config);
  return contents;
}

std::string count_text(std::int64_t count) {
  const auto number = static_cast<double>(count);
  return count < 1'000'000'000 ? fmt::format("{:.2f} million", number / 1e6)
                               : fmt::format("{:.2f} billion", number / 1e9);
}

std::string spec_text(const ModelSpec& spec) {
  return fmt::format(
      "model {}: {} layers, hidden {}, ffn {}, {} heads of {}, vocabulary {}, context {}, {}{}, {} "
      "parameters\n",
      spec.name, spec.num_layers, spec.hidden_dim, spec.ffn_dim, spec.num_heads, spec.head_dim,
      spec.vocab_size, spec.max_positions, spec.pre_norm ? "pre-norm" : "post-norm",
      spec.embed_dim != spec.hidden_dim ? fmt::format(", embedding {}", spec.embed_dim) : "",
      count_text(num_parameters(spec)));
}

std::int64_t total_bytes(const Contents& contents) {
  std::int64_t total = 0;
  for (const Row& row : contents.rows) total += row.bytes;
  return total;
}

void print_text(const Contents& contents, const std::string& path) {
  fmt::print("{} {}\n", contents.kind, path);
  if (contents.spec) fmt::print("{}", spec_text(*contents.spec));
  if (contents.kind == "store") {
    fmt::print("tokenizer: {}\n", contents.tokenizer_files.empty()
                                      ? "none"
                                      : fmt::format("{}", fmt::join(contents.tokenizer_files, ", ")));
  }
  std::size_t name_width = 4, file_width = 4, format_width = 10;
  for (const Row& row : contents.rows) {
    name_width = std::max(name_width, row.name.size());
    file_width = std::max(file_width, row.file.size());
    format_width = std::max(format_width, row.format.size());
  }
  const bool is_store = contents.kind == "store";
  fmt::print("\n{:<{}}  {:>16}  {:<{}}  {:>14}  {:<{}}  {:>14}{}\n", "name", name_width, "shape", "format",
             format_width, "bytes", "file", file_width, "offset",
             is_store ? "   zeros  bytes/weight     error" : "");
  for (const Row& row : contents.rows) {
    fmt::print("{:<{}}  {:>16}  {:<{}}  {:>14}  {:<{}}  {:>14}", row.name, name_width,
               fmt::format("{}", fmt::join(row.shape, " x ")), row.format, format_width, row.bytes, row.file,
               file_width, row.offset);
    if (is_store) {
      fmt::print("  {:>4.1f} %  {:>12.3f}  {:>8.2g}", 100.0 * row.sparsity, row.bytes_per_weight, row.error);
    }
    fmt::print("\n");
  }
  fmt::print("\n{} tensors, {} ({} bytes)\n", contents.rows.size(), format_bytes(total_bytes(contents)),
             total_bytes(contents));
}

void print_json(const Contents& contents, const std::string& path, bool verified) {
  ordered_json tensors = ordered_json::array();
  for (const Row& row : contents.rows) {
    ordered_json tensor = {{"name", row.name},   {"shape", row.shape}, {"format", row.format},
                           {"bytes", row.bytes}, {"file", row.file},   {"offset", row.offset}};
    if (!row.checksum.empty()) {
      tensor["checksum"] = row.checksum;
      tensor["sparsity"] = row.sparsity;
      tensor["bytes_per_weight"] = row.bytes_per_weight;
      tensor["error"] = row.error;
    }
    tensors.push_back(std::move(tensor));
  }
  ordered_json document = {{"kind", contents.kind}, {"path", path}};
  if (contents.kind == "store") {
    document["format_version"] = kStoreFormatVersion;
    document["tokenizer_files"] = contents.tokenizer_files;
    document["source"] = contents.source;
    document["verified"] = verified;
  }
  if (contents.spec) document["spec"] = detail::spec_to_json(*contents.spec);
  document["num_tensors"] = contents.rows.size();
  document["total_bytes"] = total_bytes(contents);
  document["tensors"] = std::move(tensors);
  fmt::print("{}\n", document.dump(2, ' ', false, ordered_json::error_handler_t::replace));
}

/// Reads everything. Each tensor that differs is reported; throws Error{kCorrupt} if there is one.
void verify_store(const fs::path& store, const Manifest& manifest) {
  const InterruptScope interrupt;
  ByteProgressLine line("verify");
  std::int64_t total = 0, done = 0, bad = 0;
  for (const StoredTensor& tensor : manifest.tensors) total += tensor.bytes;
  for (const StoredTensor& tensor : manifest.tensors) {
    StoreChecksum checksum;
    for_each_piece(store, manifest, tensor, [&](std::span<const std::byte> piece) {
      interrupt.throw_if_requested();
      checksum.update(piece);
      done += static_cast<std::int64_t>(piece.size());
      line.show(done, total);
    });
    try {
      verify_tensor(store, manifest, tensor, checksum.value());
    } catch (const Error& error) {
      log_error("{}", error.what());
      ++bad;
    }
  }
  SLUICE_CHECK(bad == 0, Code::kCorrupt,
               fmt::format("{}: {} of {} tensors differ from their checksums", store.string(), bad,
                           manifest.tensors.size()),
               "convert the checkpoint again, and check the disk");
}

void run(const InspectFlags& options) {
  const fs::path path = options.path;
  SLUICE_CHECK(fs::exists(path), Code::kNotFound, fmt::format("{}: does not exist", path.string()),
               "give a store or a checkpoint");
  if (!is_store(path)) {
    SLUICE_CHECK(
        !options.verify, Code::kInvalidArgument,
        fmt::format("{}: --verify needs a model store; a checkpoint has no checksums", path.string()),
        "convert it first, or leave --verify out");
    const Contents contents = contents_of_checkpoint(path);
    options.json ? print_json(contents, options.path, false) : print_text(contents, options.path);
    return;
  }
  const Manifest manifest = read_manifest(path);
  if (options.verify) verify_store(path, manifest);
  const Contents contents = contents_of(manifest);
  if (options.json) {
    print_json(contents, options.path, options.verify);
  } else {
    print_text(contents, options.path);
    if (options.verify) fmt::print("every checksum agrees\n");
  }
}

}  // namespace

void add_inspect_command(CLI::App& app) {
  const auto options = std::make_shared<InspectFlags>();
  CLI::App* command = app.add_subcommand("inspect", "Show what a model store or a checkpoint holds");
  command->add_option("PATH", options->path, "Model store, checkpoint folder or weights file")->required();
  command->add_flag(
      "--verify", options->verify,
      "Read every tensor of the store and compare it with its checksum; differences are named with file "
      "and offset, and the exit status is not 0");
  command->add_flag("--json", options->json, "Print JSON");
  command->callback([options] { run(*options); });
}

}  // namespace sluice::apps
