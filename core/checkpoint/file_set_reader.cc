#include "core/checkpoint/file_set_reader.h"

#include <unordered_map>
#include <utility>

#include "core/checkpoint/printable.h"

namespace sluice {
namespace {

class FileSetReader final : public CheckpointReader {
 public:
  explicit FileSetReader(std::vector<ContainerFile> files) {
    std::unordered_map<std::string, std::size_t> file_of_name;
    for (ContainerFile& file : files) {
      const std::size_t file_index = files_.size();
      for (TensorRecord& record : file.records) {
        const auto [seen, is_new] = file_of_name.emplace(record.tensor.name, file_index);
        SLUICE_CHECK(is_new, Code::kCorrupt,
                     fmt::format("{}: tensor '{}' is also in {}", file.path, printable(record.tensor.name),
                                 seen->second == file_index ? file.path : files_[seen->second].path),
                     "keep one of the two");
        record.tensor.file = file.path;
        tensors_.push_back(std::move(record.tensor));
        places_.push_back({file_index, std::move(record.place)});
      }
      files_.push_back({std::move(file.path), file.bytes});
    }
  }

  const std::vector<CheckpointTensor>& tensors() const override { return tensors_; }

  void read(std::size_t index, std::int64_t first, std::int64_t count, std::span<std::byte> out) override {
    SLUICE_ASSERT(index < tensors_.size());
    read_elements(open(places_[index].file), tensors_[index], places_[index].place, first, count, out);
  }

 private:
  struct File {
    std::string path;
    std::int64_t bytes = 0;
  };
  struct FilePlace {
    std::size_t file = 0;
    TensorPlace place;
  };

  // One file is open at a time: a .npy folder has more files than a process may hold open.
  FileSource& open(std::size_t file) {
    if (source_ == nullptr || open_file_ != file) {
      source_.reset();
      source_ = std::make_unique<FileSource>(files_[file].path);
      open_file_ = file;
      SLUICE_CHECK(source_->size() == files_[file].bytes, Code::kCorrupt,
                   fmt::format("{}: had {} bytes when it was opened, has {} now", files_[file].path,
                               files_[file].bytes, source_->size()),
                   "start again once nothing writes to the checkpoint");
    }
    return *source_;
  }

  // Fixed after construction.
  std::vector<File> files_;
  std::vector<CheckpointTensor> tensors_;
  std::vector<FilePlace> places_;  // of tensors_, same index
  // Reading thread only.
  std::unique_ptr<FileSource> source_;
  std::size_t open_file_ = 0;
};

}  // namespace

std::unique_ptr<CheckpointReader> make_file_set_reader(std::vector<ContainerFile> files) {
  return std::make_unique<FileSetReader>(std::move(files));
}

}  // namespace sluice
