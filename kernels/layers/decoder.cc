#include "kernels/layers/decoder.h"

#include <algorithm>
#include <array>

#include "core/error.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/layer_norm.h"
#include "kernels/ops/linear.h"

namespace sluice::kernels {
namespace {

bool is_projected(const ModelSpec& spec) { return spec.embed_dim != spec.hidden_dim; }

void norm(const ConstMatrixView& x, const NormWeights& weights, const ModelSpec& spec, const MatrixView& y,
          Stream& stream) {
  layer_norm({.x = x, .gamma = weights.gamma, .beta = weights.beta, .eps = spec.norm_eps, .y = y}, stream);
}

LinearArgs projection(const PreArgs& args, const ConstMatrixView& x, const LinearWeights& weights,
                      const MatrixView& y) {
  return {.x = x, .weight = weights.weight, .bias = weights.bias, .y = y, .scratch = args.expanded};
}

/// x <- x + fc2(activation(fc1(input))), in chunks of rows that fit `hidden`.
void run_mlp(const PostArgs& args, const ConstMatrixView& input, Stream& stream) {
  SLUICE_ASSERT(args.hidden.rows > 0 || args.x.rows == 0);
  for (std::int64_t first = 0; first < args.x.rows; first += args.hidden.rows) {
    const std::int64_t rows = std::min(args.hidden.rows, args.x.rows - first);
    const MatrixView hidden = args.hidden.slice_rows(0, rows);
    const MatrixView x = args.x.slice_rows(first, rows);
    linear({.x = input.slice_rows(first, rows),
            .weight = args.weights->fc1.weight,
            .bias = args.weights->fc1.bias,
            .epilogue = to_epilogue(args.spec->activation),
            .y = hidden,
            .scratch = args.expanded},
           stream);
    linear({.x = as_const(hidden),
            .weight = args.weights->fc2.weight,
            .bias = args.weights->fc2.bias,
            .residual = as_const(x),
            .y = x,
            .scratch = args.expanded},
           stream);
  }
}

}  // namespace

void run_input(const InputArgs& args, Stream& stream) {
  SLUICE_ASSERT(args.spec != nullptr && args.weights != nullptr);
  SLUICE_ASSERT(args.ids.size() == args.position_rows.size());
  if (is_projected(*args.spec)) {
    embedding({.ids = args.ids, .table = args.weights->embed_tokens, .y = args.embedded}, stream);
    linear({.x = as_const(args.embedded), .weight = args.weights->project_in, .y = args.x}, stream);
  } else {
    embedding({.ids = args.ids, .table = args.weights->embed_tokens, .y = args.x}, stream);
  }
  embedding(
      {.ids = args.position_rows, .table = args.weights->embed_positions, .accumulate = true, .y = args.x},
      stream);
}

void run_pre(const PreArgs& args, Stream& stream) {
  SLUICE_ASSERT(args.spec != nullptr && args.weights != nullptr);
  ConstMatrixView input = args.x;
  if (args.spec->pre_norm) {
    norm(args.x, args.weights->attn_norm, *args.spec, args.normed, stream);
    input = as_const(args.normed);
  }
  const std::array<LinearArgs, 3> projections = {projection(args, input, args.weights->q, args.q),
                                                 projection(args, input, args.weights->k, args.k),
                                                 projection(args, input, args.weights->v, args.v)};
  linear_group(projections, stream);
}

void run_post(const PostArgs& args, Stream& stream) {
  SLUICE_ASSERT(args.spec != nullptr && args.weights != nullptr);
  linear({.x = args.attn,
          .weight = args.weights->out.weight,
          .bias = args.weights->out.bias,
          .residual = as_const(args.x),
          .y = args.x,
          .scratch = args.expanded},
         stream);
  if (args.spec->pre_norm) {
    norm(as_const(args.x), args.weights->mlp_norm, *args.spec, args.normed, stream);
    run_mlp(args, as_const(args.normed), stream);
  } else {
    norm(as_const(args.x), args.weights->attn_norm, *args.spec, args.x, stream);
    run_mlp(args, as_const(args.x), stream);
    norm(as_const(args.x), args.weights->mlp_norm, *args.spec, args.x, stream);
  }
}

void run_output(const OutputArgs& args, Stream& stream) {
  SLUICE_ASSERT(args.spec != nullptr && args.weights != nullptr);
  ConstMatrixView input = args.x;
  if (args.spec->final_norm) {
    norm(input, args.weights->final_norm, *args.spec, args.normed, stream);
    input = as_const(args.normed);
  }
  if (is_projected(*args.spec)) {
    linear({.x = input, .weight = args.weights->project_out, .y = args.projected}, stream);
    input = as_const(args.projected);
  }
  linear({.x = input, .weight = args.weights->vocab, .y = args.logits}, stream);
}

}  // namespace sluice::kernels
