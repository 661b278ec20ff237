// Reads runs of a checkpoint's elements past the page cache: a conversion reads every byte once, and copying
// 13 GB through the cache costs more CPU time than everything else that it does. Where a tensor is not one
// run in its file, or the file system refuses O_DIRECT, the CheckpointReader reads. One thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>

#include "core/checkpoint/reader.h"
#include "core/store/posix_file.h"
#include "kernels/format/checkpoint_source.h"

namespace sluice::kernels {

/// Page-aligned memory that grows to what a piece needs and stays.
class PieceBuffer {
 public:
  std::span<std::byte> get(std::int64_t bytes);

 private:
  struct FreeDeleter {
    void operator()(std::byte* memory) const noexcept { std::free(memory); }
  };
  std::unique_ptr<std::byte, FreeDeleter> memory_;
  std::int64_t capacity_ = 0;
};

class PieceReader {
 public:
  PieceReader(const CheckpointSource& source, std::unique_ptr<CheckpointReader> reader);

  /// Elements [first, first + count) of source.tensors[tensor], somewhere in `buffer` and aligned to their
  /// size. Throws Error{kIo, kCorrupt} naming file and offset.
  std::span<const std::byte> read(std::size_t tensor, std::int64_t first, std::int64_t count,
                                  PieceBuffer& buffer);

 private:
  bool can_read_directly(const CheckpointTensor& tensor, std::int64_t bytes);

  const CheckpointSource& source_;
  std::unique_ptr<CheckpointReader> reader_;
  std::filesystem::path file_;  // that fd_ is
  sluice::detail::UniqueFd fd_;
  bool is_direct_ = false;
};

}  // namespace sluice::kernels
