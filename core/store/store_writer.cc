#include "core/store/store_writer.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <linux/fs.h>
#include <new>
#include <system_error>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <stdio.h>

#include "core/error.h"
#include "core/log.h"
#include "core/store/checksum.h"
#include "core/store/read_tensor.h"
#include "core/store/spec_json.h"
#include "core/units.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kBounceBytes = 1_MiB;
constexpr const char* kJournalName = "journal.jsonl";

std::string unit_file_name(const ModelSpec& spec, std::int64_t unit) {
  if (unit == 0) return "input.bin";
  if (unit == output_unit(spec)) return "output.bin";
  return fmt::format("layer-{:04}.bin", unit - 1);
}

/// Everything that decides the bytes of the store, as one line of text.
std::string identity_of(const StorePlan& plan) {
  nlohmann::ordered_json formats = nlohmann::ordered_json::array();
  for (const WeightFormat format : plan.formats) formats.push_back(weight_format_name(format));
  return nlohmann::ordered_json{{"format_version", kStoreFormatVersion},
                                {"spec", detail::spec_to_json(plan.spec)},
                                {"formats", std::move(formats)},
                                {"source", plan.source.text}}
      .dump(-1, ' ', true, nlohmann::ordered_json::error_handler_t::replace);
}

void remove_folder(const fs::path& folder) {
  std::error_code problem;
  fs::remove_all(folder, problem);
  if (problem) detail::throw_file_error(folder, "cannot be removed", problem.value());
}

/// Buffered files leave no pages behind: 13 GB of written weights must not push out other programs' memory.
void drop_written_pages(const detail::UniqueFd& fd, std::int64_t offset, std::int64_t bytes) {
  ::sync_file_range(fd.get(), offset, bytes,
                    SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
  ::posix_fadvise(fd.get(), offset, bytes, POSIX_FADV_DONTNEED);
}

}  // namespace

void StoreWriter::FreeDeleter::operator()(std::byte* memory) const noexcept { std::free(memory); }

StoreWriter::StoreWriter(StoreLock lock, StorePlan plan, ExistingStore existing)
    : lock_(std::move(lock)),
      plan_(std::move(plan)),
      store_(lock_.store()),
      folder_(store_.string() + ".tmp"),
      identity_(identity_of(plan_)),
      bounce_(static_cast<std::byte*>(std::aligned_alloc(kPageAlign, kBounceBytes))) {
  if (!bounce_) throw std::bad_alloc();
  validate(plan_.spec);
  list_tensors();
  make_folder(existing);
  resume();
  check_space();
}

StoreWriter::~StoreWriter() = default;  // what is finished stays in the temporary folder

void StoreWriter::list_tensors() {
  manifest_.spec = plan_.spec;
  manifest_.source = plan_.source;
  for (std::int64_t unit = 0; unit < num_units(plan_.spec); ++unit) {
    manifest_.files.push_back(unit_file_name(plan_.spec, unit));
  }
  unit_bytes_.assign(manifest_.files.size(), 0);
  std::vector<TensorSpec> specs = model_tensors(plan_.spec);
  SLUICE_ASSERT(specs.size() == plan_.formats.size());
  for (std::size_t i = 0; i < specs.size(); ++i) {
    StoredTensor tensor;
    tensor.format = plan_.formats[i];
    tensor.bytes = weight_byte_range(tensor.format, specs[i].rows, specs[i].cols).max;
    tensor.file = static_cast<std::int32_t>(specs[i].unit);
    unit_bytes_[static_cast<std::size_t>(tensor.file)] += align_up(tensor.bytes, kPageAlign);
    tensor.spec = std::move(specs[i]);
    manifest_.tensors.push_back(std::move(tensor));
  }
}

/// Behind the tensor before it, whose bytes are known by now.
void StoreWriter::place_next() {
  if (next_ == static_cast<std::int64_t>(manifest_.tensors.size())) return;
  StoredTensor& tensor = manifest_.tensors[static_cast<std::size_t>(next_)];
  tensor.offset = 0;
  if (next_ == 0) return;
  const StoredTensor& before = manifest_.tensors[static_cast<std::size_t>(next_ - 1)];
  if (before.file == tensor.file) tensor.offset = align_up(before.offset + before.bytes, kPageAlign);
}

void StoreWriter::make_folder(ExistingStore existing) {
  const bool occupied = fs::exists(store_) && !(fs::is_directory(store_) && fs::is_empty(store_));
  SLUICE_CHECK(!occupied || existing == ExistingStore::kReplace, Code::kInvalidArgument,
               fmt::format("{}: exists already", store_.string()),
               "give --force to replace it, or another name");
  SLUICE_CHECK(!occupied || is_store(store_), Code::kInvalidArgument,
               fmt::format("{}: exists and is not a model store, so it is not replaced", store_.string()),
               "remove it or give another name");
  if (fs::exists(folder_)) {
    const bool ours = fs::exists(folder_ / kJournalName) || fs::exists(folder_ / kManifestName);
    SLUICE_CHECK(ours || (fs::is_directory(folder_) && fs::is_empty(folder_)), Code::kInvalidArgument,
                 fmt::format("{}: is needed for the conversion, and holds something else", folder_.string()),
                 "move it away, or give the store another name");
  }
  std::error_code problem;
  fs::create_directories(folder_, problem);
  if (problem) detail::throw_file_error(folder_, "cannot be made", problem.value());
}

bool StoreWriter::is_finished(const StoredTensor& tensor, bool is_synced) const {
  const fs::path file = folder_ / manifest_.files[static_cast<std::size_t>(tensor.file)];
  std::error_code problem;
  const auto size = static_cast<std::int64_t>(fs::file_size(file, problem));
  if (problem || size < align_up(tensor.offset + tensor.bytes, kPageAlign)) return false;
  // A synced file is trusted by record and size. Of the file that was being written, the machine may have
  // lost pages in a power cut, so its tensors are read again.
  return is_synced || checksum_on_disk(folder_, manifest_, tensor) == tensor.checksum;
}

void StoreWriter::resume() {
  detail::JournalState found = detail::Journal::read(folder_ / kJournalName, identity_);
  detail::JournalState kept;
  for (std::size_t i = 0; i < std::min(found.tensors.size(), manifest_.tensors.size()); ++i) {
    place_next();
    StoredTensor& tensor = manifest_.tensors[i];
    const ByteRange range = weight_byte_range(tensor.format, tensor.spec.rows, tensor.spec.cols);
    if (found.tensors[i].bytes < range.min || found.tensors[i].bytes > range.max) break;
    StoredTensor finished = tensor;
    finished.bytes = found.tensors[i].bytes;
    finished.checksum = found.tensors[i].checksum;
    finished.stats = found.tensors[i].stats;
    if (!is_finished(finished, tensor.file < found.synced_units)) break;
    tensor = std::move(finished);
    kept.tensors.push_back(found.tensors[i]);
    resumed_bytes_ += tensor.bytes;
    ++next_;
  }
  place_next();
  const auto num_tensors = static_cast<std::int64_t>(manifest_.tensors.size());
  const std::int64_t open_unit = next_ == num_tensors ? num_units(plan_.spec) : manifest_.tensors[next_].file;
  kept.synced_units = std::min(found.synced_units, open_unit);
  if (next_ == 0) {
    remove_folder(folder_);
    fs::create_directory(folder_);
  } else {
    log_info("{}: continues an interrupted conversion, {} of {} tensors are there", store_.string(), next_,
             num_tensors);
  }
  journal_.emplace(folder_ / kJournalName, identity_, kept);
  // The process died between the last tensor of a unit and the end of its file.
  for (std::int64_t unit = kept.synced_units; unit < open_unit; ++unit) {
    const fs::path file = folder_ / manifest_.files[static_cast<std::size_t>(unit)];
    cut_and_sync(detail::open_file(file, O_WRONLY), file, unit);
  }
}

// Before the work, not after an hour of it. Files of finished units and of the open one have their space
// already.
void StoreWriter::check_space() const {
  std::vector<bool> is_there;
  for (const std::string& file : manifest_.files) is_there.push_back(fs::exists(folder_ / file));
  std::int64_t needed = 0, most = 0;
  for (const StoredTensor& tensor : manifest_.tensors) {
    if (is_there[static_cast<std::size_t>(tensor.file)]) continue;
    const ByteRange range = weight_byte_range(tensor.format, tensor.spec.rows, tensor.spec.cols);
    needed += align_up(range.min, kPageAlign);
    most += align_up(range.max, kPageAlign);
  }
  std::error_code problem;
  const fs::space_info space = fs::space(folder_, problem);
  if (problem) return;  // a file system that cannot tell will say when it is full
  SLUICE_CHECK(static_cast<std::uintmax_t>(needed) <= space.available, Code::kIo,
               fmt::format("{}: the store needs {}, the disk has {} free", store_.string(),
                           format_bytes(needed), format_bytes(static_cast<std::int64_t>(space.available))),
               "free space there or choose a folder on another disk");
  if (static_cast<std::uintmax_t>(most) > space.available) {
    log_warn("{}: the store may need up to {}, depending on its zeros; the disk has {} free", store_.string(),
             format_bytes(most), format_bytes(static_cast<std::int64_t>(space.available)));
  }
}

void StoreWriter::open_unit(std::int32_t unit) {
  unit_ = unit;
  file_ = folder_ / manifest_.files[static_cast<std::size_t>(unit)];
  fd_ = detail::open_direct(file_, O_WRONLY | O_CREAT, is_direct_);
  const std::int64_t bytes = unit_bytes_[static_cast<std::size_t>(unit)];
  // All of the file's space at once: a full disk shows before the work, and large extents read faster. What
  // the formats turn out not to need is cut off at the end.
  const int result = ::fallocate(fd_.get(), 0, 0, bytes);
  if (result != 0 && errno != EOPNOTSUPP && errno != ENOSYS) {
    detail::throw_file_error(file_, fmt::format("cannot get {} bytes of disk space", bytes), errno);
  }
  if (::ftruncate(fd_.get(), bytes) != 0) {
    detail::throw_file_error(file_, fmt::format("cannot be made {} bytes long", bytes), errno);
  }
}

void StoreWriter::cut_and_sync(const detail::UniqueFd& fd, const fs::path& file, std::int64_t unit) {
  std::int64_t bytes = 0;
  for (const StoredTensor& tensor : manifest_.tensors) {
    if (tensor.file == unit) bytes = align_up(tensor.offset + tensor.bytes, kPageAlign);
  }
  unit_bytes_[static_cast<std::size_t>(unit)] = bytes;
  if (::ftruncate(fd.get(), bytes) != 0) {
    detail::throw_file_error(file, fmt::format("cannot be made {} bytes long", bytes), errno);
  }
  detail::sync_file(fd, file);
  journal_->unit_synced();
}

void StoreWriter::close_unit() {
  cut_and_sync(fd_, file_, unit_);
  if (!is_direct_) ::posix_fadvise(fd_.get(), 0, 0, POSIX_FADV_DONTNEED);
  fd_ = {};
  unit_ = -1;
}

void StoreWriter::append(std::span<const std::byte> bytes) {
  SLUICE_ASSERT(next_ < static_cast<std::int64_t>(manifest_.tensors.size()));
  const StoredTensor& tensor = manifest_.tensors[static_cast<std::size_t>(next_)];
  if (unit_ != tensor.file) open_unit(tensor.file);
  if (tensor_bytes_ == 0) file_offset_ = tensor.offset;
  tensor_bytes_ += static_cast<std::int64_t>(bytes.size());
  SLUICE_ASSERT(tensor_bytes_ <= tensor.bytes);
  while (!bytes.empty()) {
    const bool in_place = bounce_fill_ == 0 && bytes.size() >= kPageAlign &&
                          reinterpret_cast<std::uintptr_t>(bytes.data()) % kPageAlign == 0;
    const std::size_t count =
        in_place ? bytes.size() / kPageAlign * kPageAlign
                 : std::min(bytes.size(), static_cast<std::size_t>(kBounceBytes - bounce_fill_));
    if (in_place) {
      write(bytes.first(count));
    } else {
      std::memcpy(bounce_.get() + bounce_fill_, bytes.data(), count);
      bounce_fill_ += static_cast<std::int64_t>(count);
      if (bounce_fill_ == kBounceBytes) flush_bounce();
    }
    bytes = bytes.subspan(count);
  }
}

void StoreWriter::flush_bounce() {
  const std::int64_t padded = align_up(bounce_fill_, kPageAlign);
  std::memset(bounce_.get() + bounce_fill_, 0, static_cast<std::size_t>(padded - bounce_fill_));
  bounce_fill_ = 0;
  write({bounce_.get(), static_cast<std::size_t>(padded)});
}

void StoreWriter::write(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  detail::write_at(fd_, file_, file_offset_, bytes);
  const auto count = static_cast<std::int64_t>(bytes.size());
  if (!is_direct_) drop_written_pages(fd_, file_offset_, count);
  file_offset_ += count;
}

void StoreWriter::finish_tensor(std::uint64_t checksum, const TensorStats& stats) {
  StoredTensor& tensor = manifest_.tensors[static_cast<std::size_t>(next_)];
  const ByteRange range = weight_byte_range(tensor.format, tensor.spec.rows, tensor.spec.cols);
  SLUICE_ASSERT(tensor_bytes_ >= range.min && tensor_bytes_ <= range.max);
  flush_bounce();
  tensor.bytes = tensor_bytes_;
  tensor.checksum = checksum;
  tensor.stats = stats;
  journal_->tensor_finished({tensor.bytes, checksum, stats});
  tensor_bytes_ = 0;
  ++next_;
  place_next();
  const bool unit_ends = next_ == static_cast<std::int64_t>(manifest_.tensors.size()) ||
                         manifest_.tensors[static_cast<std::size_t>(next_)].file != unit_;
  if (unit_ends) close_unit();
}

void StoreWriter::write_tensor(std::span<const std::byte> bytes) {
  append(bytes);
  finish_tensor(store_checksum(bytes), {});
}

void StoreWriter::add_tokenizer_file(const fs::path& source) {
  const std::string text = detail::read_text_file(source, 256_MiB);
  detail::replace_text_file(folder_ / source.filename(), text);
  manifest_.tokenizer_files.push_back(source.filename().string());
}

Manifest StoreWriter::commit() {
  SLUICE_ASSERT(next_ == static_cast<std::int64_t>(manifest_.tensors.size()));
  detail::replace_text_file(folder_ / kManifestName, manifest_to_json(manifest_));
  if (is_store(store_)) {
    // One atomic step: readers see the old store or the new one. The old one is then in the temporary folder.
    if (::renameat2(AT_FDCWD, folder_.c_str(), AT_FDCWD, store_.c_str(), RENAME_EXCHANGE) != 0) {
      if (errno != EINVAL && errno != ENOSYS) detail::throw_file_error(store_, "cannot be replaced", errno);
      remove_folder(store_);  // a file system without the exchange: for a moment there is no store
      if (::rename(folder_.c_str(), store_.c_str()) != 0) detail::throw_file_error(folder_, "rename", errno);
    }
  } else if (::rename(folder_.c_str(), store_.c_str()) != 0) {
    detail::throw_file_error(folder_, fmt::format("rename to {}", store_.string()), errno);
  }
  detail::sync_folder(store_.parent_path());
  std::error_code ignored;  // from here on the store is complete; what is left over does no harm
  fs::remove(store_ / kJournalName, ignored);
  fs::remove_all(folder_, ignored);
  return manifest_;
}

}  // namespace sluice
