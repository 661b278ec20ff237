#include "core/checkpoint/model_map.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <unordered_map>

#include "core/checkpoint/printable.h"
#include "core/checkpoint/tensor_record.h"
#include "core/error.h"
#include "core/model/hf_config.h"

namespace sluice {
namespace {

/// Problems of one kind, "missing: a; b"; past a number they are counted, for a wrong config breaks all.
class ProblemList {
 public:
  explicit ProblemList(std::string title) : title_(std::move(title)) {}
  void add(const std::string& problem) {
    if (++count_ <= kShown) text_ += fmt::format("\n  {}: {}", title_, problem);
  }
  std::string text() const {
    return count_ <= kShown ? text_ : fmt::format("{}\n  {}: and {} more", text_, title_, count_ - kShown);
  }
  std::size_t count() const { return count_; }

 private:
  static constexpr std::size_t kShown = 20;
  std::string title_;
  std::string text_;
  std::size_t count_ = 0;
};

bool is_weight_dtype(DType dtype) {
  return dtype == DType::kF16 || dtype == DType::kBF16 || dtype == DType::kF32;
}

std::vector<std::int64_t> shape_of(const TensorSpec& tensor) {
  return tensor.is_vector ? std::vector{tensor.cols} : std::vector{tensor.rows, tensor.cols};
}

std::string place_of(const CheckpointTensor& tensor) {
  return fmt::format("{} ({})", printable(tensor.name), tensor.file.filename().string());
}

}  // namespace

ModelMap map_model_tensors(const ModelSpec& spec, std::span<const CheckpointTensor> tensors) {
  std::array problems = {ProblemList("missing"), ProblemList("not in the model"), ProblemList("there twice"),
                         ProblemList("wrong shape"), ProblemList("wrong element type")};
  auto& [missing, extra, twice, wrong_shape, wrong_dtype] = problems;

  const std::vector<TensorSpec> wanted = model_tensors(spec);
  std::unordered_map<std::string, std::size_t> index_of_name;
  for (std::size_t i = 0; i < wanted.size(); ++i) index_of_name.emplace(wanted[i].name, i);

  std::vector<std::optional<std::size_t>> source(wanted.size());
  bool all_bf16 = true;
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    const CheckpointTensor& tensor = tensors[t];
    const std::string name = canonical_tensor_name(spec, tensor.name);
    if (name.empty()) continue;
    const auto found = index_of_name.find(name);
    if (found == index_of_name.end()) {
      extra.add(fmt::format("{} {}", place_of(tensor), shape_text(tensor.shape)));
      continue;
    }
    std::optional<std::size_t>& place = source[found->second];
    if (place) {
      twice.add(fmt::format("{} and {}", place_of(tensors[*place]), place_of(tensor)));
      continue;
    }
    place = t;
    const std::vector<std::int64_t> shape = shape_of(wanted[found->second]);
    if (tensor.shape != shape) {
      wrong_shape.add(fmt::format("{} is {}, the model's config.json asks for {}", place_of(tensor),
                                  shape_text(tensor.shape), shape_text(shape)));
    }
    if (!is_weight_dtype(tensor.dtype)) {
      wrong_dtype.add(
          fmt::format("{} is {}, must be f16, bf16 or f32", place_of(tensor), dtype_name(tensor.dtype)));
    }
    all_bf16 = all_bf16 && tensor.dtype == DType::kBF16;
  }
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (!source[i]) missing.add(fmt::format("{} {}", wanted[i].name, shape_text(shape_of(wanted[i]))));
  }

  std::string text;
  std::size_t count = 0;
  for (const ProblemList& list : problems) {
    text += list.text();
    count += list.count();
  }
  SLUICE_CHECK(
      count == 0, Code::kInvalidArgument,
      fmt::format("the checkpoint does not fit the model '{}', {} problems:{}\n", spec.name, count, text),
      "check that config.json and the weights belong together, or give another one with --config");

  ModelMap map;
  for (const std::optional<std::size_t>& index : source) map.source.push_back(*index);
  map.weight_dtype = all_bf16 ? DType::kBF16 : DType::kF16;
  return map;
}

}  // namespace sluice
