#include "kernels/bench/bench_matrix.h"

#include <algorithm>
#include <cmath>

#include "core/dtype.h"
#include "core/error.h"
#include "kernels/device/cpu/thread_pool.h"

namespace sluice::kernels {
namespace {

/// The finaliser of SplitMix64.
std::uint64_t mixed(std::uint64_t x) {
  x += 0x9E3779B97F4A7C15U;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
  return x ^ (x >> 31);
}

/// All 16-bit indices to values of a triangular distribution.
std::vector<std::uint16_t> value_table() {
  std::vector<std::uint16_t> table(1U << 16);
  for (std::uint32_t i = 0; i < table.size(); ++i) {
    const auto a = static_cast<float>(i & 0xFFU);
    const auto b = static_cast<float>(i >> 8);
    const float value = (a - b) / 1024.0F;
    table[i] = to_half(value == 0.0F ? 0x1p-12F : value).bits;
  }
  return table;
}

}  // namespace

void fill_bench_matrix(double sparsity, ThreadPool& pool, std::span<std::uint16_t> out) {
  const std::vector<std::uint16_t> table = value_table();
  const auto limit = static_cast<std::uint32_t>(std::lround(sparsity * 65536.0));
  // Two elements from each number: 16 bits of value and 16 of mask.
  const auto count = std::ssize(out);
  pool.parallel_for((count + 1) / 2, 1 << 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t pair = begin; pair < end; ++pair) {
      std::uint64_t bits = mixed(static_cast<std::uint64_t>(pair));
      for (std::int64_t i = 2 * pair; i < std::min(2 * pair + 2, count); ++i, bits >>= 32) {
        const auto mask = static_cast<std::uint32_t>(bits >> 16) & 0xFFFFU;
        out[static_cast<std::size_t>(i)] = mask < limit ? std::uint16_t{0} : table[bits & 0xFFFFU];
      }
    }
  });
}

std::int64_t CsrMatrix::bytes() const {
  return std::ssize(row_starts) * 4 + std::ssize(columns) * 4 + std::ssize(values) * 2;
}

CsrMatrix to_csr(std::span<const std::uint16_t> values, std::int64_t rows, std::int64_t cols,
                 ThreadPool& pool) {
  SLUICE_ASSERT(std::ssize(values) == rows * cols);
  constexpr std::int64_t kGrain = 16;
  std::vector<std::int64_t> starts(static_cast<std::size_t>(rows) + 1);
  const auto row = [&](std::int64_t r) {
    return values.subspan(static_cast<std::size_t>(r * cols), static_cast<std::size_t>(cols));
  };
  pool.parallel_for(rows, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      std::int64_t nonzeros = 0;
      for (const std::uint16_t value : row(r)) nonzeros += (value & 0x7FFFU) != 0 ? 1 : 0;
      starts[static_cast<std::size_t>(r) + 1] = nonzeros;
    }
  });
  for (std::size_t r = 1; r < starts.size(); ++r) starts[r] += starts[r - 1];
  SLUICE_CHECK(starts.back() < (std::int64_t{1} << 31), Code::kUnsupported,
               fmt::format("{} nonzeros in one CSR matrix", starts.back()), "give a smaller shape");
  CsrMatrix csr;
  csr.row_starts.assign(starts.begin(), starts.end());
  csr.columns.resize(static_cast<std::size_t>(starts.back()));
  csr.values.resize(static_cast<std::size_t>(starts.back()));
  pool.parallel_for(rows, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      auto at = static_cast<std::size_t>(starts[static_cast<std::size_t>(r)]);
      const auto of_row = row(r);
      for (std::int64_t c = 0; c < cols; ++c) {
        const std::uint16_t value = of_row[static_cast<std::size_t>(c)];
        if ((value & 0x7FFFU) == 0) continue;
        csr.columns[at] = static_cast<std::int32_t>(c);
        csr.values[at] = value;
        ++at;
      }
    }
  });
  return csr;
}

}  // namespace sluice::kernels
