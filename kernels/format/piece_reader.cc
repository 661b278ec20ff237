#include "kernels/format/piece_reader.h"

#include <fcntl.h>
#include <new>

#include "core/units.h"

namespace sluice::kernels {

std::span<std::byte> PieceBuffer::get(std::int64_t bytes) {
  if (bytes > capacity_) {
    const std::int64_t wanted = align_up(bytes, kPageAlign);
    memory_.reset();
    memory_.reset(static_cast<std::byte*>(std::aligned_alloc(kPageAlign, static_cast<std::size_t>(wanted))));
    if (!memory_) throw std::bad_alloc();
    capacity_ = wanted;
  }
  return {memory_.get(), static_cast<std::size_t>(bytes)};
}

PieceReader::PieceReader(const CheckpointSource& source, std::unique_ptr<CheckpointReader> reader)
    : source_(source), reader_(std::move(reader)) {}

bool PieceReader::can_read_directly(const CheckpointTensor& tensor, std::int64_t bytes) {
  constexpr std::int64_t kWorthIt =
      64_KiB;  // small tensors are neighbours and share the pages of one readahead
  if (bytes < kWorthIt || tensor.file_offset < 0 || tensor.file_offset % dtype_bytes(tensor.dtype) != 0)
    return false;
  if (file_ != tensor.file) {
    fd_ = detail::open_direct(tensor.file, O_RDONLY, is_direct_);
    file_ = tensor.file;
  }
  return is_direct_;
}

std::span<const std::byte> PieceReader::read(std::size_t tensor, std::int64_t first, std::int64_t count,
                                             PieceBuffer& buffer) {
  const CheckpointTensor& from = source_.tensors[tensor];
  const std::int64_t bytes = count * dtype_bytes(from.dtype);
  if (!can_read_directly(from, bytes)) {
    const std::span<std::byte> out = buffer.get(bytes);
    reader_->read(source_.indexes[tensor], first, count, out);
    return out;
  }
  // Whole pages around the elements; the last page of the file may be cut short.
  const std::int64_t start = from.file_offset + first * dtype_bytes(from.dtype);
  const std::int64_t first_page = start / kPageAlign * kPageAlign;
  const std::span<std::byte> pages = buffer.get(align_up(start + bytes, kPageAlign) - first_page);
  detail::read_at_least(fd_, file_, first_page, pages, start + bytes - first_page);
  return pages.subspan(static_cast<std::size_t>(start - first_page), static_cast<std::size_t>(bytes));
}

}  // namespace sluice::kernels
