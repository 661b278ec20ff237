#include "kernels/format/checkpoint_source.h"

#include <algorithm>
#include <array>

#include "core/checkpoint/model_map.h"
#include "core/error.h"
#include "core/log.h"
#include "core/model/hf_config.h"
#include "kernels/format/fingerprint.h"
#include "kernels/format/format.h"

namespace sluice::kernels {
namespace {

namespace fs = std::filesystem;

fs::path config_of(const fs::path& folder, const fs::path& given) {
  const fs::path config = given.empty() ? folder / "config.json" : given;
  std::error_code ignored;
  SLUICE_CHECK(fs::is_regular_file(config, ignored), Code::kNotFound,
               fmt::format("{}: the model's config.json does not exist", config.string()),
               "give it with --config FILE; it comes with the checkpoint on the Hugging Face hub");
  return config;
}

std::vector<fs::path> tokenizer_of(const fs::path& folder, const fs::path& given) {
  std::vector<fs::path> files = tokenizer_files_in(given.empty() ? folder : given);
  SLUICE_CHECK(given.empty() || !files.empty(), Code::kNotFound,
               fmt::format("{}: has no tokenizer files", given.string()),
               "give the folder with vocab.json and merges.txt, or leave --tokenizer out");
  return files;
}

SourceFingerprint fingerprint_now(const CheckpointSource& source) {
  std::vector<fs::path> small_files = source.tokenizer_files;
  small_files.push_back(source.config);
  return fingerprint_of(source.tensors, small_files);
}

/// The share of zeros in up to 16 rows, evenly over the matrix.
double sampled_sparsity(CheckpointReader& reader, std::size_t index, const TensorSpec& tensor) {
  constexpr std::int64_t kRows = 16;
  const std::int64_t rows = std::min(kRows, tensor.rows);
  const DType dtype = reader.tensors()[index].dtype;
  std::vector<std::byte> row(static_cast<std::size_t>(tensor.cols * dtype_bytes(dtype)));
  std::vector<std::uint16_t> values(static_cast<std::size_t>(tensor.cols));
  std::int64_t zeros = 0;
  for (std::int64_t i = 0; i < rows; ++i) {
    const std::int64_t first = i * tensor.rows / rows * tensor.cols;
    reader.read(index, first, tensor.cols, row);
    to_stored_values({&tensor, dtype, row, first}, dense_format_of(dtype, tensor).dtype,
                     std::as_writable_bytes(std::span(values)));
    zeros += count_zeros(values);
  }
  return static_cast<double>(zeros) / static_cast<double>(rows * tensor.cols);
}

/// A line of the store's `source`: another rule makes another store.
std::string prune_text(const std::string& tensor_name, const PruneRule& rule) {
  if (rule.fake_seed) {
    return fmt::format("prune {} to {} at random, seed {}\n", tensor_name, rule.sparsity, *rule.fake_seed);
  }
  return fmt::format("prune {} to {} per {}\n", tensor_name, rule.sparsity, prune_scope_name(rule.scope));
}

}  // namespace

std::vector<fs::path> tokenizer_files_in(const fs::path& folder) {
  std::vector<fs::path> found;
  for (const char* name : {"vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json",
                           "added_tokens.json", "tokenizer.json", "tokenizer.model"}) {
    std::error_code ignored;
    if (fs::is_regular_file(folder / name, ignored)) found.push_back(folder / name);
  }
  return found;
}

CheckpointSource open_source(const fs::path& path, const SourceOptions& options) {
  std::error_code problem;
  SLUICE_CHECK(fs::exists(path, problem), Code::kNotFound,
               fmt::format("{}: {}", path.string(), problem ? problem.message() : "does not exist"),
               "give a checkpoint's folder or file");
  const fs::path folder = fs::is_directory(path) ? path : fs::absolute(path).parent_path();
  const std::unique_ptr<CheckpointReader> reader = open_checkpoint(path);

  CheckpointSource source;
  source.path = path;
  source.config = config_of(folder, options.config);
  source.plan.spec = read_hf_config(source.config);
  const std::vector<TensorSpec> wanted = model_tensors(source.plan.spec);
  const ModelMap map = map_model_tensors(source.plan.spec, reader->tensors());
  source.indexes = map.source;
  bool matrices_are_bf16 = true;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    source.tensors.push_back(reader->tensors()[source.indexes[i]]);
    source.plan.formats.push_back(dense_format_of(source.tensors.back().dtype, wanted[i]));
    const bool is_bf16 = source.plan.formats.back().dtype == DType::kBF16;
    matrices_are_bf16 = matrices_are_bf16 && (wanted[i].is_vector || is_bf16);
  }
  source.plan.spec.weight_dtype = matrices_are_bf16 ? DType::kBF16 : DType::kF16;

  source.tokenizer_files = tokenizer_of(folder, options.tokenizer);
  source.fingerprint = fingerprint_now(source);
  source.plan.source = source.fingerprint;
  std::int64_t num_sparse = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    MatrixRule rule = rule_for(options.formats, source.plan.spec, wanted[i]);
    if (options.formats.compress && rule.encoding == Encoding::kDense && can_be_encoded(wanted[i])) {
      const double zeros =
          std::max(rule.prune.sparsity, sampled_sparsity(*reader, source.indexes[i], wanted[i]));
      rule.encoding = zeros > 0.5 ? Encoding::kBitmapInt4 : Encoding::kInt4G64;
      num_sparse += zeros > 0.5 ? 1 : 0;
    }
    source.plan.formats[i].encoding = rule.encoding;
    source.prune.push_back(rule.prune);
    if (rule.prune.sparsity > 0) source.plan.source.text += prune_text(wanted[i].name, rule.prune);
  }
  if (num_sparse > 0) {
    log_info("{}: {} matrices are more than half zeros and become bitmap_int4, which keeps the zeros",
             path.string(), num_sparse);
  }
  return source;
}

void check_unchanged(const CheckpointSource& source) {
  SLUICE_CHECK(fingerprint_now(source) == source.fingerprint, Code::kCorrupt,
               fmt::format("{}: its files changed while they were converted", source.path.string()),
               "convert it again once nothing writes to it");
}

}  // namespace sluice::kernels
