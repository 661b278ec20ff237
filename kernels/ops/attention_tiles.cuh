// Tiles of query rows, and the tables from which a launch over them knows rows and pages. CUDA sources only.
#pragma once

#include <algorithm>
#include <array>
#include <span>

#include "kernels/ops/attention_cuda.cuh"

namespace sluice::kernels::detail {

/// Up to some number of successive rows of one segment.
struct alignas(16) RowTile {
  std::int32_t first_row, num_rows;  // in q and out
  std::int32_t first_kv, full_prefix;
  std::int32_t first_page;  // place of KV index 0's page in the table of pages
  std::int32_t unused[3];

  /// Columns that row r of the tile sees; never fewer than those of an earlier row.
  __host__ __device__ int visible(int r) const {
    const int causal = first_kv + r + 1;
    return causal > full_prefix ? causal : full_prefix;
  }
};

/// Where kernels find both tables.
struct TileTables {
  const RowTile* tiles;
  const std::byte* const* pages;
};

constexpr int kCopyThreads = 256;

/// Every CTA of attention reads its tile and many pages of the table, so the tables move into device memory
/// first: one trip over PCIe for all of them. By a kernel, as a copy engine may be busy with weights.
static __global__ void __launch_bounds__(kCopyThreads)
    copy_tables_kernel(const uint4* tiles, int num_tiles, const uint4* pages, int num_pages, uint4* to,
                       int pages_at) {
  const int i = static_cast<int>(blockIdx.x) * kCopyThreads + static_cast<int>(threadIdx.x);
  if (i < num_tiles) to[i] = tiles[i];
  if (i < num_pages) to[pages_at + i] = pages[i];
}

/// The tables of one launch, gathered on the stack: an operator allocates nothing.
class TileBuilder {
 public:
  explicit TileBuilder(CudaStream& stream) : stream_(stream) {}

  /// The tiles of one segment. When the tables are full, `launch(TileTables, num_tiles)` makes room.
  template <class Launch>
  void add(const PagedSegment& segment, std::int32_t rows_per_tile, const Launch& launch) {
    const std::int64_t tokens =
        std::max<std::int64_t>(segment.first_kv + segment.num_rows, segment.full_prefix);
    const auto pages = static_cast<std::size_t>(kv_pages(tokens));
    if (pages > kMaxPages || tokens > INT32_MAX) refuse_sequence(tokens);
    if (num_pages_ + pages > kMaxPages) flush(launch);
    std::size_t first_page = add_pages(segment, pages);
    for (std::int32_t row = 0; row < segment.num_rows; row += rows_per_tile) {
      if (num_tiles_ == kMaxTiles) {
        flush(launch);
        first_page = add_pages(segment, pages);
      }
      tiles_[num_tiles_++] = {.first_row = segment.first_row + row,
                              .num_rows = std::min(rows_per_tile, segment.num_rows - row),
                              .first_kv = static_cast<std::int32_t>(segment.first_kv) + row,
                              .full_prefix = segment.full_prefix,
                              .first_page = static_cast<std::int32_t>(first_page),
                              .unused = {}};
    }
  }

  template <class Launch>
  void flush(const Launch& launch) {
    if (num_tiles_ == 0) return;
    // CTAs start in this order: the longest first, so that none is left over at the end.
    std::sort(tiles_.begin(), tiles_.begin() + num_tiles_, [](const RowTile& a, const RowTile& b) {
      const int a_visible = a.visible(a.num_rows - 1), b_visible = b.visible(b.num_rows - 1);
      return a_visible != b_visible ? a_visible > b_visible : a.first_row < b.first_row;
    });
    const auto* tiles = stream_.upload(std::as_bytes(std::span(tiles_).first(num_tiles_)));
    num_pages_ += num_pages_ % 2;  // whole 16-byte words; kMaxPages is even
    const auto* pages = stream_.upload(std::as_bytes(std::span(pages_).first(num_pages_)));
    const auto tile_words = static_cast<int>(num_tiles_ * sizeof(RowTile) / 16);
    const auto page_words = static_cast<int>(num_pages_ * sizeof(std::byte*) / 16);
    std::byte* const to = stream_.workspace().data();
    const int blocks = (std::max(tile_words, page_words) + kCopyThreads - 1) / kCopyThreads;
    copy_tables_kernel<<<blocks, kCopyThreads, 0, stream_.raw()>>>(
        reinterpret_cast<const uint4*>(tiles), tile_words, reinterpret_cast<const uint4*>(pages), page_words,
        reinterpret_cast<uint4*>(to), tile_words);
    CUDA_CHECK(cudaGetLastError());
    launch(TileTables{reinterpret_cast<const RowTile*>(to),
                      reinterpret_cast<const std::byte* const*>(to + tile_words * 16)},
           static_cast<unsigned>(num_tiles_));
    num_tiles_ = num_pages_ = 0;
  }

 private:
  static constexpr std::size_t kMaxTiles = 1024, kMaxPages = 12288;  // 128 KiB in all

  std::size_t add_pages(const PagedSegment& segment, std::size_t pages) {
    const std::size_t first = num_pages_;
    for (std::size_t page = 0; page < pages; ++page) pages_[num_pages_++] = segment.pages[page];
    return first;
  }

  CudaStream& stream_;
  std::size_t num_tiles_ = 0, num_pages_ = 0;
  std::array<RowTile, kMaxTiles> tiles_;
  std::array<const std::byte*, kMaxPages> pages_;
};

}  // namespace sluice::kernels::detail
