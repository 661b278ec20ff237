#include "core/store/read_tensor.h"

#include <algorithm>
#include <cstdlib>
#include <fcntl.h>
#include <memory>
#include <new>

#include "core/error.h"
#include "core/store/checksum.h"
#include "core/store/posix_file.h"
#include "core/units.h"

namespace sluice {

void for_each_piece(const std::filesystem::path& store, const Manifest& manifest, const StoredTensor& tensor,
                    const std::function<void(std::span<const std::byte>)>& use) {
  constexpr std::int64_t kPieceBytes = 8_MiB;
  const std::filesystem::path file = store / manifest.files.at(static_cast<std::size_t>(tensor.file));
  bool is_direct = false;
  const detail::UniqueFd fd = detail::open_direct(file, O_RDONLY, is_direct);
  const auto capacity = static_cast<std::size_t>(std::min(kPieceBytes, align_up(tensor.bytes, kPageAlign)));
  const std::unique_ptr<std::byte, decltype(&std::free)> memory(
      static_cast<std::byte*>(std::aligned_alloc(kPageAlign, std::max<std::size_t>(capacity, kPageAlign))),
      &std::free);
  if (!memory) throw std::bad_alloc();
  for (std::int64_t done = 0; done < tensor.bytes; done += kPieceBytes) {
    const std::int64_t count = std::min(kPieceBytes, tensor.bytes - done);
    // Whole pages, the padding included: O_DIRECT takes nothing else.
    detail::read_at(fd, file, tensor.offset + done,
                    {memory.get(), static_cast<std::size_t>(align_up(count, kPageAlign))});
    use({memory.get(), static_cast<std::size_t>(count)});
  }
  if (!is_direct) ::posix_fadvise(fd.get(), tensor.offset, tensor.bytes, POSIX_FADV_DONTNEED);
}

std::uint64_t checksum_on_disk(const std::filesystem::path& store, const Manifest& manifest,
                               const StoredTensor& tensor) {
  StoreChecksum checksum;
  for_each_piece(store, manifest, tensor, [&](std::span<const std::byte> piece) { checksum.update(piece); });
  return checksum.value();
}

std::vector<std::byte> read_stored_tensor(const std::filesystem::path& store, const Manifest& manifest,
                                          const StoredTensor& tensor) {
  std::vector<std::byte> bytes;
  bytes.reserve(static_cast<std::size_t>(tensor.bytes));
  for_each_piece(store, manifest, tensor, [&](std::span<const std::byte> piece) {
    bytes.insert(bytes.end(), piece.begin(), piece.end());
  });
  verify_tensor(store, manifest, tensor, bytes);
  return bytes;
}

}  // namespace sluice
