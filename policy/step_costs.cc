#include "policy/step_costs.h"

#include <algorithm>
#include <utility>

#include "core/error.h"

namespace sluice::policy {
namespace {

bool is_of_pre(const std::string& name) {
  return name.find(".q_proj.") != name.npos || name.find(".k_proj.") != name.npos ||
         name.find(".v_proj.") != name.npos;
}

bool is_of_mlp(const std::string& name) {
  return name.find(".fc1.") != name.npos || name.find(".fc2.") != name.npos;
}

/// Dense q, k and v of one shape count as one matrix: on CUDA `linear_group` multiplies with them at once.
void join_if_dense(std::vector<ModelProducts::Product>& pre) {
  if (pre.size() != 1 || pre[0].format != Encoding::kDense) return;
  pre[0].elements *= std::exchange(pre[0].count, 1);
}

}  // namespace

ModelProducts::ModelProducts(const ModelSpec& spec, std::span<const Encoding> formats)
    : kind_of_(static_cast<std::size_t>(num_units(spec))) {
  const std::vector<TensorSpec> tensors = model_tensors(spec);
  SLUICE_ASSERT(formats.empty() || formats.size() == tensors.size());
  std::vector<UnitProducts> units(kind_of_.size());
  const auto add = [](std::vector<Product>& to, Encoding format, std::int64_t elements, bool of_mlp) {
    for (Product& product : to) {
      if (product.format != format || product.of_mlp != of_mlp || product.elements != elements) continue;
      ++product.count;
      return;
    }
    to.push_back({.format = format, .elements = elements, .of_mlp = of_mlp});
  };
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const TensorSpec& tensor = tensors[i];
    if (tensor.is_vector) continue;
    const Encoding format = formats.empty() ? Encoding::kDense : formats[i];
    const std::int64_t elements = tensor.rows * tensor.cols;
    if (tensor.unit == 0) {
      // The tables of the input are looked up in, not multiplied with.
      if (tensor.name.find("project_in") != tensor.name.npos) add(input_, format, elements, false);
    } else if (tensor.unit == output_unit(spec)) {
      add(output_, format, elements, false);
    } else {
      UnitProducts& unit = units[static_cast<std::size_t>(tensor.unit)];
      add(is_of_pre(tensor.name) ? unit.pre : unit.post, format, elements, is_of_mlp(tensor.name));
    }
  }
  for (std::size_t unit = 1; unit + 1 < units.size(); ++unit) {
    join_if_dense(units[unit].pre);
    const auto known = std::find(kinds_.begin(), kinds_.end(), units[unit]);
    kind_of_[unit] = static_cast<std::size_t>(known - kinds_.begin());
    if (known == kinds_.end()) kinds_.push_back(units[unit]);
  }
}

StepCosts::StepCosts(const RunShape& shape, const Rates& rates, const ModelProducts& products)
    : shape_(shape), rates_(rates), products_(products) {}

double StepCosts::stage_sec(const std::vector<Product>& products, std::int64_t rows) const {
  double sec = 0;
  for (const Product& product : products) {
    const std::int64_t chunk = product.of_mlp ? std::min(shape_.traits.mlp_rows, rows) : rows;
    const std::int64_t whole = rows / chunk;
    const std::int64_t rest = rows % chunk;
    double of_one = static_cast<double>(whole) * rates_.product_sec(product.format, chunk, product.elements);
    if (rest > 0) of_one += rates_.product_sec(product.format, rest, product.elements);
    sec += static_cast<double>(product.count) * of_one;
  }
  return sec;
}

StepCosts::BatchCosts StepCosts::costs_of(const BatchPass& batch) const {
  BatchCosts costs;
  const std::int64_t rows = batch.num_tokens;
  if (rows == 0) return costs;
  const double act = static_cast<double>(shape_.act_bytes());
  const double stream_bytes = static_cast<double>(rows * shape_.spec.hidden_dim) * act;
  const double kv_row_bytes =
      static_cast<double>(shape_.kv.token_bytes()) + 2 * act * static_cast<double>(shape_.kv_dim());
  for (const ModelProducts::UnitProducts& kind : products_.kinds()) {
    // Beside the products: the norm reads and writes the rows, new K and V are read and written into pages.
    costs.pre.push_back(stage_sec(kind.pre, rows) +
                        rates_.gpu_copy_sec(2 * stream_bytes + static_cast<double>(rows) * kv_row_bytes));
    costs.post.push_back(stage_sec(kind.post, rows) + rates_.gpu_copy_sec(2 * stream_bytes));
  }
  costs.embed = rates_.gpu_copy_sec(4 * stream_bytes) + stage_sec(products_.input(), rows);
  for (std::int64_t left = batch.num_wanted; left > 0; left -= shape_.traits.logits_rows) {
    const std::int64_t chunk = std::min(left, shape_.traits.logits_rows);
    // The sampler reads fp32 logits twice.
    costs.head += stage_sec(products_.output(), chunk) +
                  rates_.gpu_copy_sec(2.0 * 4 * static_cast<double>(chunk * shape_.spec.vocab_size));
  }
  double cpu_bytes = 0, gpu_bytes = 0, operations = 0;
  for (std::int32_t i = 0; i < batch.num_segments; ++i) {
    const Segment& segment = pass_->segments[static_cast<std::size_t>(batch.first_segment + i)];
    const auto new_rows = static_cast<double>(segment.num_tokens);
    const auto history = static_cast<double>(segment.first_kv);
    if (segment.decode) {
      const double bytes = (history + new_rows) * static_cast<double>(shape_.kv.token_bytes());
      (segment.on_cpu ? cpu_bytes : gpu_bytes) += bytes;
    } else {
      operations += 4 * static_cast<double>(shape_.q_dim()) * new_rows * (history + (new_rows + 1) / 2);
    }
  }
  costs.attend_gpu = rates_.gpu_decode_sec(gpu_bytes) + rates_.gpu_prefill_sec(operations);
  costs.attend_cpu = rates_.cpu_decode_sec(shape_.kv.format, cpu_bytes);
  return costs;
}

void StepCosts::set_pass(const Pass& pass) {
  pass_ = &pass;
  batches_.clear();
  for (const BatchPass& batch : pass.batches) batches_.push_back(costs_of(batch));
}

double StepCosts::transfer_sec(const Step& step) const {
  const bool down = step.lane == LaneKind::kD2h || step.lane == LaneKind::kD2hUrgent;
  const bool of_kv = step.kind == StepKind::kLoadKv || step.kind == StepKind::kStoreKv;
  // The pages of a sequence follow one another, and are copied in one go.
  std::int64_t pieces = 1;
  if (of_kv) {
    const BatchPass& batch = pass_->batches[static_cast<std::size_t>(step.gpu_batch)];
    pieces = std::max(1, step.kind == StepKind::kLoadKv ? batch.load_kv_segments : batch.store_kv_segments);
  }
  const std::int64_t piece = std::max<std::int64_t>(1, step.bytes / pieces);
  return rates_.copy_sec(down ? Link::kD2h : Link::kH2d, step.bytes, piece);
}

double StepCosts::work_sec(const Step& step) const {
  if (step.lane == LaneKind::kDiskRead) return rates_.disk_read_sec(step.bytes);
  if (step.lane == LaneKind::kDiskWrite) return rates_.disk_write_sec(step.bytes);
  const bool of_weights = step.kind == StepKind::kLoadWeights;  // of the next pass, too
  SLUICE_ASSERT(of_weights || (pass_ != nullptr && step.pass == pass_->number));
  if (step.lane != LaneKind::kGpu && step.lane != LaneKind::kCpu) return transfer_sec(step);
  const BatchCosts& costs = batches_[static_cast<std::size_t>(step.gpu_batch)];
  switch (step.kind) {
    case StepKind::kEmbed:
      return costs.embed;
    case StepKind::kPre:
      return costs.pre[products_.kind_of(step.unit)];
    case StepKind::kPost:
      return costs.post[products_.kind_of(step.unit)];
    case StepKind::kAttend:
      return step.lane == LaneKind::kCpu ? costs.attend_cpu : costs.attend_gpu;
    case StepKind::kHead:
      return costs.head;
    default:
      throw Error(Code::kInternal, fmt::format("no cost of {}", step_kind_name(step.kind)), "");
  }
}

}  // namespace sluice::policy
