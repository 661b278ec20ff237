// How long each step of a run takes alone, by a hardware profile. Not thread-safe: costs of a pass are kept.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "core/format.h"
#include "policy/pass.h"
#include "policy/rates.h"
#include "policy/run_shape.h"
#include "policy/step.h"

namespace sluice::policy {

class StepCosts {
 public:
  /// `formats` of the tensors in model_tensors order; empty: all dense. Shape and rates outlive this.
  StepCosts(const RunShape& shape, const Rates& rates, std::span<const Encoding> formats = {});

  /// Steps of this pass follow. Weight transfers need none.
  void set_pass(const Pass& pass);
  /// Seconds from start to end if no other lane works. Steps but weight transfers belong to the pass of
  /// set_pass.
  double seconds(const Step& step) const;

 private:
  /// Weight matrices of equal format that one stage multiplies with.
  struct Product {
    Encoding format = Encoding::kDense;
    std::int64_t elements = 0;
    bool of_mlp = false;  ///< runs in chunks of mlp_rows
  };
  struct UnitProducts {
    std::vector<Product> pre, post;
  };
  struct BatchCosts {
    std::vector<double> pre, post;  // by kind of unit
    double embed = 0, head = 0, attend_gpu = 0, attend_cpu = 0;
  };

  double stage_sec(const std::vector<Product>& products, std::int64_t rows) const;
  BatchCosts costs_of(const BatchPass& batch) const;
  double transfer_sec(const Step& step) const;

  const RunShape& shape_;
  const Rates& rates_;
  std::vector<UnitProducts> kinds_;   // of decoder layers, each once
  std::vector<std::size_t> kind_of_;  // by unit
  std::vector<Product> input_, output_;
  const Pass* pass_ = nullptr;
  std::vector<BatchCosts> batches_;
};

}  // namespace sluice::policy
