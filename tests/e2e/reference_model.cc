#include "tests/e2e/reference_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include <fmt/format.h>

#include "core/dtype.h"
#include "core/store/read_tensor.h"

namespace sluice::testing {
namespace {

template <class Storage>
std::vector<double> widened(std::span<const std::byte> bytes) {
  std::vector<double> values(bytes.size() / sizeof(Storage));
  for (std::size_t i = 0; i < values.size(); ++i) {
    Storage stored;
    std::memcpy(&stored, bytes.data() + i * sizeof(Storage), sizeof(Storage));
    values[i] = static_cast<double>(to_float(stored));
  }
  return values;
}

double activated(double x, Activation activation) {
  switch (activation) {
    case Activation::kRelu:
      return std::max(x, 0.0);
    case Activation::kGelu:
      return 0.5 * x * (1.0 + std::erf(x / std::sqrt(2.0)));
    case Activation::kGeluTanh:
      return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x)));
  }
  return x;
}

}  // namespace

ReferenceModel::ReferenceModel(const std::filesystem::path& store) {
  const Manifest manifest = read_manifest(store);
  spec_ = manifest.spec;
  for (const StoredTensor& tensor : manifest.tensors) {
    const std::vector<std::byte> bytes = read_stored_tensor(store, manifest, tensor);
    tensors_[tensor.spec.name] =
        tensor.format == WeightFormat::kDenseBF16 ? widened<BFloat16>(bytes) : widened<Half>(bytes);
  }
}

const std::vector<double>* ReferenceModel::find(const std::string& name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

/// W x + b; the bias may be missing.
Columns ReferenceModel::linear(const Columns& x, const std::string& name, std::int64_t out_features) const {
  const std::vector<double>& weight = tensors_.at(name + ".weight");
  const std::vector<double>* bias = find(name + ".bias");
  Columns y(out_features, x.tokens);
  for (std::int64_t o = 0; o < out_features; ++o) {
    double* const out = y.row(o);
    std::fill_n(out, x.tokens, bias != nullptr ? (*bias)[static_cast<std::size_t>(o)] : 0.0);
    for (std::int64_t i = 0; i < x.features; ++i) {
      const double w = weight[static_cast<std::size_t>(o * x.features + i)];
      const double* const in = x.row(i);
      for (std::int64_t t = 0; t < x.tokens; ++t) out[t] += w * in[t];
    }
  }
  return y;
}

/// (x - mean) / sqrt(variance + eps) * gamma + beta over the features of each token.
Columns ReferenceModel::norm(const Columns& x, const std::string& name) const {
  const std::vector<double>* gamma = find(name + ".weight");
  const std::vector<double>* beta = find(name + ".bias");
  Columns y(x.features, x.tokens);
  const auto n = static_cast<double>(x.features);
  for (std::int64_t t = 0; t < x.tokens; ++t) {
    double mean = 0;
    for (std::int64_t i = 0; i < x.features; ++i) mean += x.row(i)[t] / n;
    double variance = 0;
    for (std::int64_t i = 0; i < x.features; ++i) variance += (x.row(i)[t] - mean) * (x.row(i)[t] - mean) / n;
    const double scale = 1.0 / std::sqrt(variance + static_cast<double>(spec_.norm_eps));
    for (std::int64_t i = 0; i < x.features; ++i) {
      const auto index = static_cast<std::size_t>(i);
      y.row(i)[t] = (x.row(i)[t] - mean) * scale * (gamma != nullptr ? (*gamma)[index] : 1.0) +
                    (beta != nullptr ? (*beta)[index] : 0.0);
    }
  }
  return y;
}

Columns ReferenceModel::embed(std::span<const std::int32_t> ids) const {
  const auto tokens = static_cast<std::int64_t>(ids.size());
  const std::vector<double>& table = tensors_.at("decoder.embed_tokens.weight");
  const std::vector<double>& positions = tensors_.at("decoder.embed_positions.weight");
  Columns embedded(spec_.embed_dim, tokens);
  for (std::int64_t t = 0; t < tokens; ++t) {
    const std::int64_t first = ids[static_cast<std::size_t>(t)] * spec_.embed_dim;
    for (std::int64_t i = 0; i < spec_.embed_dim; ++i)
      embedded.row(i)[t] = table[static_cast<std::size_t>(first + i)];
  }
  Columns x = spec_.embed_dim == spec_.hidden_dim ? std::move(embedded)
                                                  : linear(embedded, "decoder.project_in", spec_.hidden_dim);
  for (std::int64_t t = 0; t < tokens; ++t) {
    const std::int64_t first = (t + spec_.position_offset) * spec_.hidden_dim;
    for (std::int64_t i = 0; i < spec_.hidden_dim; ++i)
      x.row(i)[t] += positions[static_cast<std::size_t>(first + i)];
  }
  return x;
}

/// Causal softmax(q k / sqrt(head_dim)) v.
Columns ReferenceModel::attention(const Columns& q, const Columns& k, const Columns& v) const {
  Columns out(q.features, q.tokens);
  const std::int64_t group = spec_.num_heads / spec_.num_kv_heads;
  const double scale = 1.0 / std::sqrt(static_cast<double>(spec_.head_dim));
  std::vector<double> p;
  for (std::int64_t head = 0; head < spec_.num_heads; ++head) {
    const std::int64_t first = head * spec_.head_dim;
    const std::int64_t first_kv = head / group * spec_.head_dim;
    for (std::int64_t t = 0; t < q.tokens; ++t) {
      p.assign(static_cast<std::size_t>(t + 1), 0.0);
      for (std::int64_t d = 0; d < spec_.head_dim; ++d) {
        const double query = q.row(first + d)[t] * scale;
        const double* const key = k.row(first_kv + d);
        for (std::size_t s = 0; s < p.size(); ++s) p[s] += query * key[s];
      }
      const double largest = *std::max_element(p.begin(), p.end());
      double sum = 0;
      for (double& x : p) sum += x = std::exp(x - largest);
      for (std::int64_t d = 0; d < spec_.head_dim; ++d) {
        const double* const value = v.row(first_kv + d);
        double mixed = 0;
        for (std::size_t s = 0; s < p.size(); ++s) mixed += p[s] * value[s];
        out.row(first + d)[t] = mixed / sum;
      }
    }
  }
  return out;
}

void ReferenceModel::layer(Columns& x, std::int64_t number, const KvStep& kv_step) const {
  const std::string name = fmt::format("decoder.layers.{}.", number);
  const auto add = [&](const Columns& y) {
    for (std::size_t i = 0; i < x.data.size(); ++i) x.data[i] += y.data[i];
  };
  const std::int64_t kv_dim = spec_.num_kv_heads * spec_.head_dim;
  {
    const Columns input = spec_.pre_norm ? norm(x, name + "self_attn_layer_norm") : x;
    const Columns q = linear(input, name + "self_attn.q_proj", spec_.num_heads * spec_.head_dim);
    Columns k = linear(input, name + "self_attn.k_proj", kv_dim);
    Columns v = linear(input, name + "self_attn.v_proj", kv_dim);
    kv_step(number, k, v);
    add(linear(attention(q, k, v), name + "self_attn.out_proj", spec_.hidden_dim));
    if (!spec_.pre_norm) x = norm(x, name + "self_attn_layer_norm");
  }
  const Columns input = spec_.pre_norm ? norm(x, name + "final_layer_norm") : x;
  Columns hidden = linear(input, name + "fc1", spec_.ffn_dim);
  for (double& value : hidden.data) value = activated(value, spec_.activation);
  add(linear(hidden, name + "fc2", spec_.hidden_dim));
  if (!spec_.pre_norm) x = norm(x, name + "final_layer_norm");
}

std::vector<std::vector<double>> ReferenceModel::log_probs(std::span<const std::int32_t> ids,
                                                           const KvStep& kv_step) const {
  Columns x = embed(ids);
  for (std::int64_t i = 0; i < spec_.num_layers; ++i) layer(x, i, kv_step);
  if (spec_.final_norm) x = norm(x, "decoder.final_layer_norm");
  if (spec_.embed_dim != spec_.hidden_dim) x = linear(x, "decoder.project_out", spec_.embed_dim);
  const Columns logits =
      linear(x, spec_.tied_embedding ? "decoder.embed_tokens" : "lm_head", spec_.vocab_size);
  std::vector<std::vector<double>> result(ids.size());
  for (std::size_t t = 0; t < ids.size(); ++t) {
    std::vector<double>& row = result[t];
    for (std::int64_t v = 0; v < spec_.vocab_size; ++v) row.push_back(logits.row(v)[t]);
    const double largest = *std::max_element(row.begin(), row.end());
    double sum = 0;
    for (const double logit : row) sum += std::exp(logit - largest);
    for (double& logit : row) logit -= largest + std::log(sum);
  }
  return result;
}

}  // namespace sluice::testing
