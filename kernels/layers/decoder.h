// The stages of a model as compositions of operators: input, decoder layer before and after attention,
// output. A new family is a new composition. No device types; nothing is allocated here.
#pragma once

#include <cstdint>
#include <span>

#include "core/matrix.h"
#include "core/model/spec.h"
#include "kernels/device/stream.h"
#include "kernels/format/weight_view.h"

namespace sluice::kernels {

struct NormWeights {
  ConstVectorView gamma, beta;
};
struct LinearWeights {
  WeightView weight;
  ConstVectorView bias;
};

struct InputWeights {
  WeightView embed_tokens, embed_positions;
  WeightView project_in;  ///< data empty: none
};
struct DecoderWeights {
  NormWeights attn_norm, mlp_norm;
  LinearWeights q, k, v, out, fc1, fc2;
};
struct OutputWeights {
  NormWeights final_norm;
  WeightView project_out;  ///< data empty: none
  WeightView vocab;        ///< [vocab_size, embed_dim]
};

/// x[t] = project_in(embed_tokens[ids[t]]) + embed_positions[positions[t] + position_offset].
/// `embedded` is scratch [num_tokens, embed_dim], used only if project_in exists. `position_rows` are table
/// rows.
struct InputArgs {
  const ModelSpec* spec = nullptr;
  const InputWeights* weights = nullptr;
  std::span<const std::int32_t> ids = {}, position_rows = {};
  MatrixView embedded = {};
  MatrixView x = {};
};
void run_input(const InputArgs& args, Stream& stream);

/// q, k, v of normed x (pre-norm) or x (post-LN). `normed` is scratch [num_tokens, hidden_dim]; `expanded` is
/// scratch for weights that are not dense (kernels/ops/expand.h).
struct PreArgs {
  const ModelSpec* spec = nullptr;
  const DecoderWeights* weights = nullptr;
  ConstMatrixView x = {};
  MatrixView normed = {};
  MatrixView q = {}, k = {}, v = {};
  std::span<std::byte> expanded = {};
};
void run_pre(const PreArgs& args, Stream& stream);

/// x <- x + out_proj(attn), then the MLP, with the norms where the spec puts them. In place on x.
/// `normed` is scratch [num_tokens, hidden_dim]; `hidden` is scratch [chunk_rows, ffn_dim], and the MLP runs
/// in chunks of that many rows; `expanded` as in PreArgs.
struct PostArgs {
  const ModelSpec* spec = nullptr;
  const DecoderWeights* weights = nullptr;
  ConstMatrixView attn = {};
  MatrixView x = {};
  MatrixView normed = {};
  MatrixView hidden = {};
  std::span<std::byte> expanded = {};
};
void run_post(const PostArgs& args, Stream& stream);

/// logits [num_rows, vocab_size] of the rows of x. `normed` is scratch [num_rows, hidden_dim], `projected`
/// scratch [num_rows, embed_dim], used only if project_out exists.
struct OutputArgs {
  const ModelSpec* spec = nullptr;
  const OutputWeights* weights = nullptr;
  ConstMatrixView x = {};
  MatrixView normed = {};
  MatrixView projected = {};
  MatrixView logits = {};
};
void run_output(const OutputArgs& args, Stream& stream);

}  // namespace sluice::kernels
