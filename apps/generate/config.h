// The settings of `generate`: from a YAML file (--run-config), --set and flags, in this order. Plain data.
// Zero or an empty text means "not stated" where a rule then decides.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sluice::apps {

struct ModelConfig {
  std::string path;       ///< a store, a Hugging Face folder, or random:NAME[:SEED]
  std::string store;      ///< where a converted store is kept
  std::string config;     ///< a config.json for a folder without one
  std::string tokenizer;  ///< a folder with tokenizer files
  bool add_bos = true;    ///< text prompts begin with the bos token

  template <class Self, class Visit>
  static void visit_fields(Self& self, Visit&& visit) {
    visit("path", self.path, "a store, a Hugging Face folder, or random:NAME[:SEED]");
    visit("store", self.store, "where the store of a converted folder is kept");
    visit("config", self.config, "a config.json for a folder that has none");
    visit("tokenizer", self.tokenizer, "a folder with vocab.json and merges.txt");
    visit("add_bos", self.add_bos, "text prompts begin with the bos token");
  }
};

struct PlacementConfig {
  std::vector<int> percent;         ///< six, or none for the rule
  std::int64_t gpu_batch_size = 0;  ///< 0: the rule's
  std::int64_t num_gpu_batches = 0;
  bool cpu_cache_compute = false;
  std::string kv_format = "fp16";
  std::int64_t max_tokens_per_gpu_batch = 8192;
  std::int64_t prefetch_depth = 2;
  bool mixing = true;

  template <class Self, class Visit>
  static void visit_fields(Self& self, Visit&& visit) {
    visit("percent", self.percent, "W-gpu W-cpu C-gpu C-cpu A-gpu A-cpu; the rest is on disk");
    visit("gpu_batch_size", self.gpu_batch_size, "sequences of one GPU batch; 0: chosen");
    visit("num_gpu_batches", self.num_gpu_batches,
          "GPU batches that share a pass over the weights; 0: chosen");
    visit("cpu_cache_compute", self.cpu_cache_compute,
          "the CPU attends for decode rows whose KV is off the GPU");
    visit("kv_format", self.kv_format, "fp16 or fp32");
    visit("max_tokens_per_gpu_batch", self.max_tokens_per_gpu_batch, "most rows of a GPU batch in one pass");
    visit("prefetch_depth", self.prefetch_depth, "layers whose weights are on the GPU at once");
    visit("mixing", self.mixing, "prefill and decode rows may share a pass");
  }
};

struct MemoryConfig {
  std::string gpu;  ///< "16GiB"; empty: what the placement needs
  std::string cpu;
  std::string disk;
  std::string disk_dir;  ///< empty: a private folder under the system's temporary folder

  template <class Self, class Visit>
  static void visit_fields(Self& self, Visit&& visit) {
    visit("gpu", self.gpu, "budget of GPU memory, for example 16GiB; empty: what is needed");
    visit("cpu", self.cpu, "budget of CPU memory");
    visit("disk", self.disk, "budget of the disk folder");
    visit("disk_dir", self.disk_dir, "folder of the disk tier; empty: a private temporary one");
  }
};

struct ComputeConfig {
  std::int64_t threads = 0;  ///< of the compute pool; 0: all cores

  template <class Self, class Visit>
  static void visit_fields(Self& self, Visit&& visit) {
    visit("threads", self.threads, "of the compute pool; 0: all cores");
  }
};

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

  template <class Self, class Visit>
  static void visit_fields(Self& self, Visit&& visit) {
    visit("max_new_tokens", self.max_new_tokens, "tokens to generate; 0 scores the prompt");
    visit("do_sample", self.do_sample, "sample; otherwise the most likely token is taken");
    visit("temperature", self.temperature, "divides the logits before sampling");
    visit("top_k", self.top_k, "sample among the k most likely tokens; 0: all");
    visit("top_p", self.top_p, "sample among the fewest tokens that have this mass");
    visit("seed", self.seed, "of the sampling draws");
    visit("stop", self.stop, "text ends before the first of these");
    visit("ignore_eos", self.ignore_eos, "go on after the end-of-sequence token");
  }
};

/// The synthetic benchmark; it runs if prompt_len is not 0.
struct SyntheticConfig {
  std::int64_t prompt_len = 0;
  std::int64_t num_prompts = 0;  ///< 0: one block

  template <class Self, class Visit>
  static void visit_fields(Self& self, Visit&& visit) {
    visit("prompt_len", self.prompt_len, "tokens of each random prompt; 0: no benchmark");
    visit("num_prompts", self.num_prompts, "how many prompts; 0: one block");
  }
};

struct GenerateConfig {
  ModelConfig model;
  PlacementConfig placement;
  MemoryConfig memory;
  GenerationConfig generation;
  SyntheticConfig synthetic;
  ComputeConfig compute;

  template <class Self, class Visit>
  static void visit_fields(Self& self, Visit&& visit) {
    visit("model", self.model, "what runs");
    visit("placement", self.placement, "what lives where, in which shapes");
    visit("memory", self.memory, "budgets of the three tiers; sizes are bytes or carry KiB..TiB");
    visit("generation", self.generation, "defaults of requests");
    visit("synthetic", self.synthetic, "benchmark with random prompts");
    visit("compute", self.compute, "threads");
  }
};

}  // namespace sluice::apps
