// Which container lies at a path, and which files belong to it.
#include <algorithm>
#include <array>
#include <unordered_set>
#include <utility>

#include "core/checkpoint/file_set_reader.h"
#include "core/checkpoint/npy.h"
#include "core/checkpoint/printable.h"
#include "core/checkpoint/safetensors.h"
#include "core/checkpoint/shard_index.h"
#include "core/checkpoint/torch_zip.h"
#include "core/log.h"
#include "core/units.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMaxIndexBytes = 8_MiB;  // OPT-175B's has 0.2 MB

using ReadHeader = std::vector<TensorRecord> (*)(ByteSource&);

// A clone of a model repository without its large files has these in their place.
void refuse_lfs_pointer(ByteSource& source) {
  constexpr std::string_view kPointer = "version https://git-lfs";
  const auto bytes = static_cast<std::int64_t>(kPointer.size());
  SLUICE_CHECK(source.size() < bytes || source.read_text(0, bytes) != kPointer, Code::kNotFound,
               fmt::format("{}: a Git LFS pointer, not the file itself", source.name()),
               "run 'git lfs pull' in its folder");
}

ContainerFile read_container(const fs::path& path, ReadHeader read_header) {
  FileSource source(path);
  refuse_lfs_pointer(source);
  return {path.string(), source.size(), read_header(source)};
}

/// "fc1.weight, fc1.bias, fc2.weight and 12 more"
std::string some_of(const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 3;
  std::string text;
  for (std::size_t i = 0; i < std::min(kShown, names.size()); ++i)
    text += (i > 0 ? ", " : "") + printable(names[i]);
  if (names.size() > kShown) text += fmt::format(" and {} more", names.size() - kShown);
  return text;
}

// The index is the authority: only the tensors that it places in a file are taken from it.
void keep_indexed(ContainerFile& file, const std::vector<std::string>& wanted) {
  std::unordered_set<std::string> missing(wanted.begin(), wanted.end());
  const std::size_t held = file.records.size();
  std::erase_if(file.records,
                [&](const TensorRecord& record) { return missing.erase(record.tensor.name) == 0; });
  if (file.records.size() < held) {
    log_warn("{}: {} tensors that the index does not place here are ignored", file.path,
             held - file.records.size());
  }
  std::vector<std::string> names(missing.begin(), missing.end());
  std::sort(names.begin(), names.end());
  SLUICE_CHECK(
      names.empty(), Code::kCorrupt,
      fmt::format("{}: tensors that the index places here are missing: {}", file.path, some_of(names)),
      "the shard and the index do not belong together: download both again");
}

std::unique_ptr<CheckpointReader> open_index(const fs::path& path, ReadHeader read_header) {
  FileSource source(path);
  refuse_lfs_pointer(source);
  SLUICE_CHECK(
      source.size() <= kMaxIndexBytes, Code::kCorrupt,
      fmt::format("{}: {} bytes, the limit for an index is {}", source.name(), source.size(), kMaxIndexBytes),
      "download the index again");
  const ShardIndex index = parse_shard_index(source.read_text(0, source.size()), source.name());

  std::string missing;
  for (const auto& [name, tensors] : index.files) {
    if (fs::exists(path.parent_path() / name)) continue;
    missing += fmt::format("{}{} ({} tensors: {})", missing.empty() ? "" : "; ", name, tensors.size(),
                           some_of(tensors));
  }
  SLUICE_CHECK(missing.empty(), Code::kNotFound,
               fmt::format("{}: shards are missing: {}", source.name(), missing),
               "download the missing files into the same folder");

  std::vector<ContainerFile> files;
  for (const auto& [name, tensors] : index.files) {
    try {
      files.push_back(read_container(path.parent_path() / name, read_header));
    } catch (const Error& e) {
      throw Error(e.code(),
                  fmt::format("{} (this shard holds {} tensors: {})", what_without_fix(e), tensors.size(),
                              some_of(tensors)),
                  e.fix());
    }
    keep_indexed(files.back(), tensors);
  }
  return make_file_set_reader(std::move(files));
}

std::unique_ptr<CheckpointReader> open_single(const fs::path& path, ReadHeader read_header) {
  std::vector<ContainerFile> files;
  files.push_back(read_container(path, read_header));
  return make_file_set_reader(std::move(files));
}

// One file: its first bytes decide; what has no magic is safetensors.
std::unique_ptr<CheckpointReader> open_file(const fs::path& path) {
  const std::string name = path.filename().string();
  if (name.ends_with(".safetensors.index.json")) return open_index(path, read_safetensors_header);
  if (name.ends_with(".bin.index.json")) return open_index(path, read_torch_header);
  FileSource source(path);
  if (is_npy(source)) {
    return open_single(path, [](ByteSource& npy) {
      const fs::path file = npy.name();
      const bool has_extension = file.extension() == ".npy";
      return std::vector{read_npy_header(npy, (has_extension ? file.stem() : file.filename()).string())};
    });
  }
  const std::string extension = path.extension().string();
  const bool is_torch_name = extension == ".bin" || extension == ".pt" || extension == ".pth";
  return open_single(path, is_torch_name || is_torch(source) ? read_torch_header : read_safetensors_header);
}

// FlexGen and Alpa name the files as the tensors, without extension; numpy.save by itself adds ".npy".
bool has_npy_name(const std::string& name) {
  return name.ends_with(".npy") || name.starts_with("decoder.") || name.starts_with("model.decoder.") ||
         name == "lm_head.weight";
}

std::vector<fs::path> files_of(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::unique_ptr<CheckpointReader> open_npy_folder(const std::vector<fs::path>& paths) {
  std::vector<ContainerFile> files;
  for (const fs::path& path : paths) {
    FileSource source(path);
    refuse_lfs_pointer(source);
    const std::string name = (path.extension() == ".npy" ? path.stem() : path.filename()).string();
    files.push_back({path.string(), source.size(), {read_npy_header(source, name)}});
  }
  return make_file_set_reader(std::move(files));
}

// Files that trainers put beside the weights.
bool is_training_state(const std::string& name) {
  constexpr std::array kNames = {"training_args.bin", "optimizer.pt",  "optimizer.bin",
                                 "scheduler.pt",      "scheduler.bin", "rng_state.pth"};
  return std::find(kNames.begin(), kNames.end(), name) != kNames.end();
}

struct Container {
  const char* index_name;
  const char* file_name;
  std::initializer_list<const char*> extensions;
  ReadHeader read_header;
};

// In order of preference: a folder that holds both is read from the first.
const std::array kContainers = {
    Container{"model.safetensors.index.json", "model.safetensors", {".safetensors"}, read_safetensors_header},
    Container{
        "pytorch_model.bin.index.json", "pytorch_model.bin", {".bin", ".pt", ".pth"}, read_torch_header}};

std::unique_ptr<CheckpointReader> open_folder(const fs::path& folder) {
  const std::vector<fs::path> files = files_of(folder);
  const auto has = [&](const char* name) { return fs::is_regular_file(folder / name); };
  for (const Container& container : kContainers) {
    if (has(container.index_name)) return open_index(folder / container.index_name, container.read_header);
    if (has(container.file_name)) return open_single(folder / container.file_name, container.read_header);
    std::vector<fs::path> candidates;
    for (const fs::path& file : files) {
      const std::string extension = file.extension().string();
      if (std::count(container.extensions.begin(), container.extensions.end(), extension) > 0 &&
          !is_training_state(file.filename().string())) {
        candidates.push_back(file);
      }
    }
    if (candidates.size() == 1) return open_single(candidates[0], container.read_header);
    SLUICE_CHECK(!has("config.ini") || candidates.empty(), Code::kUnsupported,
                 fmt::format("{}: a FasterTransformer folder (config.ini and .bin files)", folder.string()),
                 "give the Hugging Face checkpoint that it was made from");
    SLUICE_CHECK(candidates.empty(), Code::kNotFound,
                 fmt::format("{}: {} {} files and no {}", folder.string(), candidates.size(),
                             *container.extensions.begin(), container.index_name),
                 "download the index too, or give one file by its own path");
  }
  std::vector<fs::path> arrays;
  for (const fs::path& file : files) {
    if (has_npy_name(file.filename().string())) arrays.push_back(file);
  }
  SLUICE_CHECK(
      !arrays.empty(), Code::kNotFound, fmt::format("{}: no checkpoint in this folder", folder.string()),
      "looked for model.safetensors, pytorch_model.bin, their .index.json, any one .safetensors, .bin, .pt "
      "or .pth file, and .npy files named as tensors");
  return open_npy_folder(arrays);
}

}  // namespace

std::unique_ptr<CheckpointReader> open_checkpoint(const fs::path& path) {
  SLUICE_CHECK(fs::exists(path), Code::kNotFound, fmt::format("{}: no such file or folder", path.string()),
               "give a checkpoint folder or file");
  try {
    return fs::is_directory(path) ? open_folder(path) : open_file(path);
  } catch (const fs::filesystem_error& e) {
    throw Error(Code::kIo, e.what(), "check the permissions of the folder");
  }
}

}  // namespace sluice
