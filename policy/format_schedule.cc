#include "policy/format_schedule.h"

#include <fmt/format.h>

namespace sluice::policy {

std::string format_schedule(const Schedule& schedule) {
  std::string text;
  for (const Step& step : schedule.steps) {
    text += fmt::format("{} {}: {} unit {}", lane_name(step.lane), step.seq, step_kind_name(step.kind),
                        step.unit);
    const auto field = [&](const char* name, std::int64_t value) {
      if (value >= 0) text += fmt::format(" {} {}", name, value);
    };
    field("batch", step.gpu_batch);
    field("piece", step.piece);
    field("weights", step.weight_slot);
    field("weights", step.input_weight_slot);
    field("stage", step.stage_slot);
    field("act", step.act_slot);
    field("window", step.window);
    field("kvstage", step.kv_stage);
    field("set", step.set);
    if (step.bytes > 0) text += fmt::format(" bytes {}", step.bytes);
    const char* separator = " |";
    for (const Wait& wait : step.wait_list()) {
      text += fmt::format("{} {} {}", separator, lane_name(wait.lane), wait.count);
      separator = ",";
    }
    text += '\n';
  }
  return text;
}

std::string format_pass(const Pass& pass) {
  std::string text = fmt::format("pass {}\n", pass.number);
  for (std::size_t b = 0; b < pass.batches.size(); ++b) {
    const BatchPass& batch = pass.batches[b];
    text += fmt::format("batch {}: {} tokens, {} wanted, {} cpu rows\n", b, batch.num_tokens,
                        batch.num_wanted, batch.num_cpu_rows);
    for (std::int32_t i = 0; i < batch.num_segments; ++i) {
      const Segment& s = pass.segments[static_cast<std::size_t>(batch.first_segment + i)];
      text += fmt::format("  seat {} {} kv {} +{} row {}{}\n", s.seat, s.decode ? "decode" : "prefill",
                          s.first_kv, s.num_tokens, s.first_row, s.on_cpu ? " on cpu" : "");
    }
  }
  return text;
}

}  // namespace sluice::policy
