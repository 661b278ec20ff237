// The options of `sluice bench spmm`, resolved: what is measured. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/format.h"
#include "kernels/bench/spmm_bench.h"

namespace sluice::apps {

struct SpmmOptions {
  std::string device = "cuda";
  std::vector<std::string> shapes, formats, products;
  std::vector<std::int64_t> rows;
  std::vector<std::int64_t> cusparse_rows;
  std::vector<double> sparsities;
  int threads = 1;
  int samples = 0;  ///< 0: 11, or 5 with `quick`
  std::string csv;
  bool quick = false, summary_only = false;
};

/// What the options mean, with the defaults filled in. Throws Error{kInvalidArgument} naming what is wrong.
struct SpmmPlan {
  std::vector<kernels::SpmmShape> shapes;
  std::vector<std::int64_t> rows;           ///< ascending
  std::vector<std::int64_t> cusparse_rows;  ///< some of them
  std::vector<double> sparsities;           ///< ascending
  std::vector<Encoding> sparse;             ///< measured at each sparsity
  std::vector<Encoding> quantised;          ///< measured over a matrix without zeros
  int samples = 0;
};
SpmmPlan plan_spmm(const SpmmOptions& options);

}  // namespace sluice::apps
