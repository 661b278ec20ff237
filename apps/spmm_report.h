// The figures of `sluice bench spmm`: a row per measurement, as a line for people and as CSV, and geometric
// means over the shapes. Pure but for the stream that is written to; not thread-safe.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

#include "kernels/bench/spmm_bench.h"

namespace sluice::apps {

enum class SpmmKind : std::uint8_t {
  kPeer,           ///< cuBLAS, cuBLASLt, cuSPARSE
  kFused,          ///< ours, in one launch over the stored form
  kExpandProduct,  ///< ours, expansion ahead of cuBLASLt
  kExpansion,      ///< expansion alone
};

struct SpmmRow {
  kernels::SpmmShape shape;
  std::int64_t n = 0;    ///< rows of x; 0 for an expansion
  double sparsity = 0;   ///< of the matrix; 0 for a dense one
  std::string format;    ///< "tiled_csl", "csr"
  bool lossless = true;  ///< the format gives back every fp16 value
  std::string product;
  SpmmKind kind = SpmmKind::kPeer;
  kernels::SpmmTiming timing;
  std::int64_t stored_bytes = 0;
  /// Of the better dense peer at the same shape and n, over this one's time; 0: not compared.
  double speedup = 0;

  bool measured() const { return timing.why_not.empty(); }
  bool right() const { return timing.worst_error <= 1; }
};

/// Bytes that the row's work moves at least: the stored weight, and x and y, or the expanded matrix.
double moved_bytes(const SpmmRow& row);
/// Seconds below which it cannot be: those of its bytes at the copy rate or, if longer, of its multiply-adds
/// at the rate of products.
double floor_sec(const SpmmRow& row, const kernels::SpmmDeviceRates& rates);

/// "14336x7168", as --shapes takes it.
std::string shape_text(const kernels::SpmmShape& shape);
std::string table_head();
std::string table_line(const SpmmRow& row, const kernels::SpmmDeviceRates& rates);
std::string csv_head();
std::string csv_line(const SpmmRow& row, const kernels::SpmmDeviceRates& rates);

/// Geometric means over the shapes: of the speed-ups, per product and n, a column per sparsity; then of the
/// shares of the roofline; then expansions. "best fused" takes, shape by shape, the fastest fused product of
/// a lossless format. Rows that are wrong or were not measured are left out, and a mean over fewer than all
/// shapes of the run says over how many.
std::string summary(const std::vector<SpmmRow>& rows, const kernels::SpmmDeviceRates& rates);

}  // namespace sluice::apps
