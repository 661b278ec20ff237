#include "apps/generate/model.h"

#include <charconv>
#include <optional>
#include <span>
#include <vector>

#include "apps/convert_progress.h"
#include "core/config/model_config.h"
#include "core/config/nearest.h"
#include "core/log.h"
#include "core/store/checksum.h"
#include "core/store/manifest.h"
#include "core/store/posix_file.h"
#include "core/units.h"
#include "kernels/format/checkpoint_source.h"
#include "kernels/format/resolve.h"

namespace sluice::apps {
namespace {

constexpr std::string_view kRandom = "random:";
constexpr std::int64_t kMaxTokenizerFileBytes = 256_MiB;

std::uint64_t hash_text(std::string_view text) { return store_checksum(std::as_bytes(std::span(text))); }

void open_tokenizer_of(const std::filesystem::path& folder, OpenedModel& model) {
  if (!has_tokenizer(folder)) return;
  model.tokenizer = open_tokenizer(folder);
  std::string all;
  for (const std::filesystem::path& file : kernels::tokenizer_files_in(folder)) {
    all += file.filename().string() + "\n" + detail::read_text_file(file, kMaxTokenizerFileBytes);
  }
  model.fingerprint += fmt::format(" tokenizer {:016x}", hash_text(all));
}

kernels::FormatConfig formats_of(const ModelConfig& config) {
  SLUICE_CHECK(config.sparsity >= 0 && config.sparsity <= 1, Code::kInvalidArgument,
               fmt::format("--sparsity {}: is no share of zeros", config.sparsity),
               "give a number from 0 to 1");
  kernels::FormatConfig formats;
  formats.sparsity = config.sparsity;
  formats.compress = config.compress_weight;
  if (config.format.empty()) return formats;
  const std::optional<Encoding> encoding = parse_encoding(config.format);
  if (!encoding) {
    std::vector<std::string_view> known;
    for (const Encoding each : all_encodings()) known.push_back(encoding_name(each));
    throw Error(Code::kInvalidArgument, fmt::format("--format {}: is not known", config.format),
                suggest_name(config.format, known));
  }
  formats.format = *encoding;
  return formats;
}

OpenedModel open_random(const ModelConfig& config) {
  const RandomModelName name = parse_random_model(config.path);
  const std::optional<ModelSpec> spec = find_builtin_model(name.name);
  if (!spec) {
    const std::vector<std::string> names = builtin_model_names();
    const std::vector<std::string_view> known(names.begin(), names.end());
    throw Error(Code::kNotFound, fmt::format("--model {}: no built-in model '{}'", config.path, name.name),
                suggest_name(name.name, known));
  }
  OpenedModel model;
  model.spec = *spec;
  model.source.random_spec = model.spec;
  model.source.random_seed = name.seed;
  model.source.random_formats = formats_of(config);
  kernels::FormatConfig& formats = model.source.random_formats;
  if (formats.compress && formats.format == Encoding::kDense) {
    formats.format = formats.sparsity > 0.5 ? Encoding::kBitmapInt4 : Encoding::kInt4G64;
  }
  model.fingerprint = fmt::format("random:{}:{} {} {}", name.name, name.seed, encoding_name(formats.format),
                                  formats.sparsity);
  return model;
}

OpenedModel open_stored(const ModelConfig& config, std::stop_token stop) {
  kernels::ResolveOptions options;
  options.store = config.store;
  options.source.config = config.config;
  options.source.tokenizer = config.tokenizer;
  options.source.formats = formats_of(config);
  options.stop = std::move(stop);
  std::optional<ByteProgressLine> line;  // begun by the first progress: a store needs no conversion
  options.progress = [&line](const kernels::ConvertProgress& progress) {
    if (!line) line.emplace("convert", progress.done_bytes);
    line->show(progress.done_bytes, progress.total_bytes, progress.bytes_per_sec);
  };
  const kernels::ResolvedModel resolved = kernels::resolve_model(config.path, options);
  line.reset();
  if (resolved.converted) log_info("converted {} to {}", config.path, resolved.store.string());
  const Manifest manifest = read_manifest(resolved.store);
  OpenedModel model;
  model.source.store = resolved.store;
  model.spec = manifest.spec;
  model.fingerprint = fmt::format("store {:016x}", hash_text(manifest_to_json(manifest)));
  return model;
}

}  // namespace

RandomModelName parse_random_model(const std::string& path) {
  RandomModelName result;
  if (!path.starts_with(kRandom)) return result;
  const std::string_view rest = std::string_view(path).substr(kRandom.size());
  const std::size_t colon = rest.find(':');
  result.name = rest.substr(0, colon);
  SLUICE_CHECK(!result.name.empty(), Code::kInvalidArgument, fmt::format("--model {}: no name", path),
               "write random:opt-1.3b or random:opt-1.3b:7");
  if (colon == rest.npos) return result;
  const std::string_view seed = rest.substr(colon + 1);
  const auto [end, error] = std::from_chars(seed.data(), seed.data() + seed.size(), result.seed);
  SLUICE_CHECK(error == std::errc{} && end == seed.data() + seed.size(), Code::kInvalidArgument,
               fmt::format("--model {}: '{}' is no seed", path, seed), "write random:opt-1.3b:7");
  return result;
}

OpenedModel open_model(const ModelConfig& config, std::stop_token stop) {
  const bool is_random = config.path.starts_with(kRandom);
  OpenedModel model = is_random ? open_random(config) : open_stored(config, std::move(stop));
  if (!config.tokenizer.empty()) {
    SLUICE_CHECK(has_tokenizer(config.tokenizer), Code::kNotFound,
                 fmt::format("--tokenizer {}: no tokenizer files there", config.tokenizer),
                 "give a folder with vocab.json and merges.txt");
    open_tokenizer_of(config.tokenizer, model);
  } else if (!is_random) {
    open_tokenizer_of(model.source.store, model);
  }
  return model;
}

}  // namespace sluice::apps
