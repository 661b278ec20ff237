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

/// The products that the stages of a model make: what costs need of its tensors. Immutable.
class ModelProducts {
 public:
  /// `formats` of the tensors in model_tensors order; empty: all dense.
  explicit ModelProducts(const ModelSpec& spec, std::span<const Encoding> formats = {});

  /// Products of one stage with weight matrices of equal format and size. Dense q, k and v of one shape are
  /// one matrix, as for `linear_group`.
  struct Product {
    Encoding format = Encoding::kDense;
    std::int64_t elements = 0;  ///< of each matrix
    std::int64_t count = 1;
    bool of_mlp = false;  ///< runs in chunks of mlp_rows
    friend bool operator==(const Product&, const Product&) = default;
  };
  struct UnitProducts {
    std::vector<Product> pre, post;
    friend bool operator==(const UnitProducts&, const UnitProducts&) = default;
  };

  const std::vector<UnitProducts>& kinds() const { return kinds_; }  ///< of decoder layers, each once
  std::size_t kind_of(std::int64_t unit) const { return kind_of_[static_cast<std::size_t>(unit)]; }
  const std::vector<Product>& input() const { return input_; }
  const std::vector<Product>& output() const { return output_; }

 private:
  std::vector<UnitProducts> kinds_;
  std::vector<std::size_t> kind_of_;  // by unit
  std::vector<Product> input_, output_;
};

class StepCosts {
 public:
  /// Shape, rates and products outlive this.
  StepCosts(const RunShape& shape, const Rates& rates, const ModelProducts& products);

  /// Steps of this pass follow. Weight transfers need none.
  void set_pass(const Pass& pass);
  /// Seconds from start to end if no other lane works: the overhead of the step's lane and its work. Steps
  /// but weight transfers belong to the pass of set_pass.
  double seconds(const Step& step) const { return rates_.overhead_sec(step.lane) + work_sec(step); }
  /// The same without the overhead of the step's lane.
  double work_sec(const Step& step) const;

 private:
  using Product = ModelProducts::Product;
  struct BatchCosts {
    std::vector<double> pre, post;  // by kind of unit
    double embed = 0, head = 0, attend_gpu = 0, attend_cpu = 0;
  };

  double stage_sec(const std::vector<Product>& products, std::int64_t rows) const;
  BatchCosts costs_of(const BatchPass& batch) const;
  double transfer_sec(const Step& step) const;

  const RunShape& shape_;
  const Rates& rates_;
  const ModelProducts& products_;
  const Pass* pass_ = nullptr;
  std::vector<BatchCosts> batches_;
};

}  // namespace sluice::policy
