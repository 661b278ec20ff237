// The settings of `generate`: from a YAML file (--run-config), --set and flags, in this order. Plain data.
// Zero, null or an empty text means "not stated": the planner, or a default that depends on other settings,
// decides (plan.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/config/fields.h"
#include "core/config/format_names.h"
#include "core/kv_page.h"

namespace sluice::apps {

struct ModelConfig {
  std::string path;
  std::string store;
  std::string config;
  std::string tokenizer;
  bool add_bos = true;
  std::string format;
  double sparsity = 0;
  bool compress_weight = false;
};

template <class Visitor>
void visit_fields(Visitor& visit, ModelConfig& model) {
  visit("path", model.path, "a store, a Hugging Face folder, or random:NAME[:SEED]");
  visit("store", model.store, "where the store of a converted folder is kept; empty: beside it");
  visit("config", model.config, "a config.json for a folder that has none");
  visit("tokenizer", model.tokenizer, "a folder with vocab.json and merges.txt, for a model that has none");
  visit("add_bos", model.add_bos, "text prompts begin with the bos token");
  visit("format", model.format, "of the decoder layers' matrices, as in sluice convert; empty: dense");
  visit("sparsity", model.sparsity, "share of zeros that a converted folder is pruned to, or random: has",
        between(0, 1));
  visit("compress_weight", model.compress_weight,
        "4-bit weights: a folder is converted once to an int4 store");
}

struct PlacementConfig {
  std::vector<int> percent;
  std::int64_t gpu_batch_size = 0;
  std::int64_t num_gpu_batches = 0;
  std::optional<bool> cpu_cache_compute;
  KvFormat kv_format = KvFormat::kF16;
  std::int64_t max_tokens_per_gpu_batch = 0;
  std::int64_t prefetch_depth = 0;
  bool mixing = true;
  bool prefetch = true;
  std::string piece_size;
};

template <class Visitor>
void visit_fields(Visitor& visit, PlacementConfig& placement) {
  visit("percent", placement.percent, "W-gpu W-cpu C-gpu C-cpu A-gpu A-cpu; empty: chosen", between(0, 100));
  visit("gpu_batch_size", placement.gpu_batch_size, "sequences of one GPU batch; 0: chosen", at_least(0));
  visit("num_gpu_batches", placement.num_gpu_batches,
        "GPU batches that share a pass over the weights; 0: chosen", at_least(0));
  visit("cpu_cache_compute", placement.cpu_cache_compute,
        "the CPU attends for decode rows whose KV is off the GPU; null: chosen, with percent false");
  visit("kv_format", placement.kv_format, "what K and V are rounded to");
  visit("max_tokens_per_gpu_batch", placement.max_tokens_per_gpu_batch,
        "most rows of a GPU batch in one pass; bounds its workspace; 0: chosen, with percent 8192",
        at_least(0));
  visit("prefetch_depth", placement.prefetch_depth,
        "layers whose weights are on the GPU at once, at least 2; 0: chosen, with percent 2", at_least(0));
  visit("mixing", placement.mixing, "prefill and decode rows may share a pass");
  visit("prefetch", placement.prefetch, "weights come before the GPU has come to their layer");
  visit("piece_size", placement.piece_size, "weights move in pieces of this size; empty: 32MiB");
}

struct MemoryConfig {
  std::string gpu;
  std::string cpu;
  std::string disk;
  std::string disk_dir;
  bool pin_weights = true;
};

template <class Visitor>
void visit_fields(Visitor& visit, MemoryConfig& memory) {
  visit("gpu", memory.gpu, "budget, for example 16GiB; empty: what the placement needs");
  visit("cpu", memory.cpu, "budget of CPU memory");
  visit("disk", memory.disk, "budget of the disk folder");
  visit("disk_dir", memory.disk_dir, "folder of the disk tier; empty: a private temporary one");
  visit("pin_weights", memory.pin_weights, "weights in CPU memory are pinned for a GPU's transfers");
}

struct ComputeConfig {
  std::string device = "auto";
  bool batch_invariant = false;
  std::int64_t threads = 0;
  std::string hardware;
};

template <class Visitor>
void visit_fields(Visitor& visit, ComputeConfig& compute) {
  visit("device", compute.device, "auto, cpu, cuda or cuda:N; auto takes a GPU where there is one");
  visit("batch_invariant", compute.batch_invariant,
        "results do not depend on the shape of the block, bit for bit; slower on a GPU");
  visit("threads", compute.threads, "of the compute pool; 0: all cores, but one beside a GPU",
        between(0, 4096));
  visit("hardware", compute.hardware,
        "profile that planning and the report count with, a file or one that ships; empty: your own");
}

/// What requests have that say nothing themselves.
struct GenerationConfig {
  std::int64_t max_new_tokens = 32;
  bool do_sample = false;
  double temperature = 1;
  std::int64_t top_k = 0;
  double top_p = 1;
  std::uint64_t seed = 0;
  std::vector<std::string> stop;
  bool ignore_eos = false;
};

template <class Visitor>
void visit_fields(Visitor& visit, GenerationConfig& generation) {
  visit("max_new_tokens", generation.max_new_tokens, "tokens to generate; 0 scores the prompt",
        between(0, 2147483647));
  visit("do_sample", generation.do_sample, "sample; otherwise the most likely token is taken");
  visit("temperature", generation.temperature, "divides the logits before sampling", at_least(0));
  visit("top_k", generation.top_k, "sample among the k most likely tokens; 0: all", between(0, 2147483647));
  visit("top_p", generation.top_p, "sample among the fewest tokens that have this mass",
        Bounds{.min = 0, .max = 1, .above_min = true});
  visit("seed", generation.seed, "of the sampling draws");
  visit("stop", generation.stop, "text ends before the first of these");
  visit("ignore_eos", generation.ignore_eos, "go on after the end-of-sequence token");
}

/// The benchmark with random prompts; it runs if prompt_len is not 0.
struct SyntheticConfig {
  std::int64_t prompt_len = 0;
  std::int64_t num_prompts = 0;
};

template <class Visitor>
void visit_fields(Visitor& visit, SyntheticConfig& synthetic) {
  visit("prompt_len", synthetic.prompt_len, "tokens of each random prompt; 0: no benchmark", at_least(0));
  visit("num_prompts", synthetic.num_prompts, "how many prompts; 0: one block, 4 where its shape is open",
        at_least(0));
}

struct GenerateConfig {
  ModelConfig model;
  PlacementConfig placement;
  MemoryConfig memory;
  ComputeConfig compute;
  GenerationConfig generation;
  SyntheticConfig synthetic;
};

template <class Visitor>
void visit_fields(Visitor& visit, GenerateConfig& config) {
  visit("model", config.model, "what runs");
  visit("placement", config.placement, "what lives where, in which shapes");
  visit("memory", config.memory, "budgets of the three tiers; sizes are bytes or carry KiB..TiB");
  visit("compute", config.compute, "threads");
  visit("generation", config.generation, "defaults of requests");
  visit("synthetic", config.synthetic, "benchmark with random prompts");
}

}  // namespace sluice::apps
