// Writes a model store: into `<store>.tmp`, tensor by tensor in the order of the pass, synced, the manifest
// last, then renamed. What is finished is kept when the process dies, and the next writer of the same
// conversion goes on behind it. One thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/store/journal.h"
#include "core/store/manifest.h"
#include "core/store/posix_file.h"
#include "core/store/store_lock.h"

namespace sluice {

/// What is to be written. Two plans that are equal make the same bytes, so one may finish the other's work.
struct StorePlan {
  ModelSpec spec;
  std::vector<WeightFormat> formats;  ///< one per entry of model_tensors(spec)
  SourceFingerprint source;
};

/// What happens if the store exists already.
enum class ExistingStore : std::uint8_t { kRefuse, kReplace };

class StoreWriter {
 public:
  /// Starts, or continues what an earlier writer of an equal plan left. Throws Error{kInvalidArgument} if the
  /// store exists (see `existing`) or a folder in its place is no store, {kIo} for what the file system
  /// refuses.
  StoreWriter(StoreLock lock, StorePlan plan, ExistingStore existing);
  ~StoreWriter();
  StoreWriter(const StoreWriter&) = delete;
  StoreWriter& operator=(const StoreWriter&) = delete;

  /// All tensors. Places, bytes and checksums are final once a tensor is finished; until then, bytes are the
  /// most that its format may need.
  const std::vector<StoredTensor>& tensors() const { return manifest_.tensors; }
  /// The tensor that append() writes; tensors before it are finished. tensors().size() when all are.
  std::int64_t next_tensor() const { return next_; }
  /// Payload bytes that were found finished at the start.
  std::int64_t resumed_bytes() const { return resumed_bytes_; }

  /// The next bytes of the current tensor. Written in place, without a copy, if `bytes` lies at a multiple of
  /// kPageAlign in memory and so did all pieces before it in length.
  void append(std::span<const std::byte> bytes);
  /// The current tensor is complete; `checksum` is store_checksum of its bytes. Throws Error{kInternal} if
  /// their number is not one that the format can have.
  void finish_tensor(std::uint64_t checksum, const TensorStats& stats);
  /// append and finish_tensor for a tensor that is in memory as a whole.
  void write_tensor(std::span<const std::byte> bytes);

  /// Copies a tokenizer file into the store under its own name.
  void add_tokenizer_file(const std::filesystem::path& source);

  /// Call when every tensor is written: writes the manifest, puts the store in place, and returns the
  /// manifest.
  Manifest commit();

 private:
  void list_tensors();
  void place_next();
  void make_folder(ExistingStore existing);
  void resume();
  void check_space() const;
  bool is_finished(const StoredTensor& tensor, bool is_synced) const;
  void open_unit(std::int32_t unit);
  void close_unit();
  /// Ends a unit's file, whose tensors are all finished, behind the last one.
  void cut_and_sync(const detail::UniqueFd& fd, const std::filesystem::path& file, std::int64_t unit);
  void write(std::span<const std::byte> bytes);
  void flush_bounce();

  // fixed after construction
  StoreLock lock_;
  StorePlan plan_;
  std::filesystem::path store_, folder_;
  std::string identity_;

  Manifest manifest_;
  std::vector<std::int64_t> unit_bytes_;  // by unit; the most that it can need, exact once it is complete
  std::optional<detail::Journal> journal_;
  std::int64_t next_ = 0, resumed_bytes_ = 0;

  // the file being written
  detail::UniqueFd fd_;
  std::filesystem::path file_;
  std::int32_t unit_ = -1;
  bool is_direct_ = false;
  std::int64_t file_offset_ = 0;   // of the next write
  std::int64_t tensor_bytes_ = 0;  // of the current tensor, appended so far

  struct FreeDeleter {
    void operator()(std::byte* memory) const noexcept;
  };
  std::unique_ptr<std::byte, FreeDeleter> bounce_;  // page-aligned; collects what cannot be written in place
  std::int64_t bounce_fill_ = 0;
};

}  // namespace sluice
