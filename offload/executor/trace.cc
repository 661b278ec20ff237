#include "offload/executor/trace.h"

#include <fmt/format.h>

#include "core/error.h"

namespace sluice::offload {

using policy::Step;
using policy::StepTime;

TraceWriter::TraceWriter(const std::filesystem::path& file) : path_(file), out_(file, std::ios::trunc) {
  check();
  // The format is the Trace Event Format's JSON array; metadata events name the rows.
  out_ << "[\n";
  for (std::size_t lane = 0; lane < policy::kNumLanes; ++lane) {
    out_ << fmt::format(R"({{"name":"thread_name","ph":"M","pid":1,"tid":{},"args":{{"name":"{}"}}}},)", lane,
                        lane_name(static_cast<policy::LaneKind>(lane)))
         << '\n';
  }
  out_ << R"({"name":"process_name","ph":"M","pid":1,"args":{"name":"sluice"}})";
}

void TraceWriter::check() const {
  SLUICE_CHECK(out_.good(), Code::kIo, fmt::format("cannot write the trace '{}'", path_.string()),
               "give --trace a path on a disk with free space");
}

void TraceWriter::add(const policy::Schedule& schedule, const std::vector<StepTime>& times) {
  for (std::size_t i = 0; i < schedule.steps.size(); ++i) {
    const Step& step = schedule.steps[i];
    const StepTime& time = times[i];
    out_
        << ",\n"
        << fmt::format(
               R"({{"name":"{}","ph":"X","pid":1,"tid":{},"ts":{:.1f},"dur":{:.1f},"args":{{"pass":{},"unit":{},"gpu_batch":{},"bytes":{}}}}})",
               step_kind_name(step.kind), policy::lane_index(step.lane), time.start_sec * 1e6,
               (time.end_sec - time.start_sec) * 1e6, step.pass, step.unit, step.gpu_batch, step.bytes);
  }
  check();
}

void TraceWriter::end_run() {
  const std::ofstream::pos_type end = out_.tellp();
  out_ << "\n]\n";
  out_.flush();
  check();
  out_.seekp(end);  // the next step overwrites the bracket
}

}  // namespace sluice::offload
