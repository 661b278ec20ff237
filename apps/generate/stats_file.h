// --stats-out: one JSON object a line, for programs. One thread.
//
//   {"kind": "run", "version", "commit", "build", "device", "config": {...}, "placement": "...", "workload":
//   {...}}
//   {"kind": "summary", ...}                                    summary_json of generate/report.h
#pragma once

#include <memory>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "apps/generate/config.h"
#include "apps/output/sink.h"
#include "offload/engine.h"

namespace sluice::apps {

class StatsFile {
 public:
  /// Writes the first line. An empty path makes every call do nothing. Throws Error{kIo}.
  StatsFile(const std::string& path, const GenerateConfig& config, const offload::EngineOptions& options,
            const std::string& model_fingerprint);
  void write(const nlohmann::ordered_json& line);
  void finish();

 private:
  std::unique_ptr<Sink> sink_;
};

/// A placement as runs and sweeps write it.
nlohmann::ordered_json run_placement_json(const policy::Placement& placement);

/// The configuration as nested objects, by its own list of fields.
nlohmann::ordered_json config_json(GenerateConfig config);

}  // namespace sluice::apps
