#include "apps/generate/stats_file.h"

#include <nlohmann/json.hpp>

#include "apps/version.h"
#include "core/build_config.h"

namespace sluice::apps {
namespace {

using nlohmann::ordered_json;

template <class T>
ordered_json to_json(T& value);

class JsonFields {
 public:
  template <class T>
  void operator()(std::string_view name, T& value, std::string_view /*help*/, const Bounds& = {}) {
    object_[std::string(name)] = to_json(value);
  }
  ordered_json take() { return std::move(object_); }

 private:
  ordered_json object_ = ordered_json::object();
};

template <class T>
ordered_json to_json(T& value) {
  if constexpr (ConfigStruct<T>) {
    JsonFields fields;
    visit_fields(fields, value);
    return fields.take();
  } else if constexpr (std::is_same_v<T, KvFormat>) {
    return kv_format_name(value);
  } else if constexpr (sluice::detail::kIsOptional<T>) {
    return value ? to_json(*value) : ordered_json();
  } else {
    return value;
  }
}

ordered_json workload_json(const policy::Workload& work) {
  return {{"num_requests", work.num_requests},
          {"max_prompt_len", work.max_prompt_len},
          {"max_gen_len", work.max_gen_len},
          {"max_total_len", work.max_total_len}};
}

}  // namespace

ordered_json run_placement_json(const policy::Placement& p) {
  return {{"percent", policy::to_string(p.percents)},
          {"gpu_batch_size", p.gpu_batch_size},
          {"num_gpu_batches", p.num_gpu_batches},
          {"cpu_attention", p.cpu_attention},
          {"mixing", p.mixing},
          {"prefetch", p.prefetch},
          {"kv_format", kv_format_name(p.kv_format)},
          {"max_tokens_per_gpu_batch", p.max_tokens_per_gpu_batch},
          {"prefetch_depth", p.prefetch_depth}};
}

ordered_json config_json(GenerateConfig config) { return to_json(config); }

StatsFile::StatsFile(const std::string& path, const GenerateConfig& config,
                     const offload::EngineOptions& options, const std::string& model_fingerprint) {
  if (path.empty()) return;
  sink_ = make_file_sink(path, 0);
  write({{"kind", "run"},
         {"version", kVersion},
         {"commit", kCommit},
         {"build", kBuildType},
         {"device", devices_text()},
         {"model", model_fingerprint},
         {"config", config_json(config)},
         {"placement", run_placement_json(options.placement)},
         {"workload", workload_json(options.workload)}});
}

void StatsFile::write(const ordered_json& line) {
  if (sink_) sink_->write(line.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n");
}

void StatsFile::finish() {
  if (sink_) sink_->finish();
}

}  // namespace sluice::apps
