// The batch API for people who come from FlexGen and transformers.
#include <map>
#include <utility>

#include "offload/engine.h"

namespace sluice::offload {

std::vector<std::vector<std::int32_t>> generate(Engine& engine,
                                                const std::vector<std::vector<std::int32_t>>& input_ids,
                                                const GenerateParams& params) {
  std::vector<std::vector<std::int32_t>> rows(input_ids.size());
  std::map<std::int64_t, std::size_t> row_of;  // other requests may be queued on the engine
  try {
    for (std::size_t row = 0; row < input_ids.size(); ++row) {
      Request request;
      request.prompt_ids = input_ids[row];
      request.max_new_tokens = params.max_new_tokens;
      request.sampling.do_sample = params.do_sample;
      request.sampling.temperature = params.temperature;
      if (params.stop) request.stop_ids = {*params.stop};
      row_of.emplace(engine.submit(std::move(request)), row);
    }
  } catch (...) {
    for (const auto& [index, row] : row_of) engine.cancel(index);
    throw;
  }
  engine.run({}, [&](const Result& result) {
    const auto found = row_of.find(result.index);
    if (found == row_of.end()) return;
    std::vector<std::int32_t>& row = rows[found->second];
    row = input_ids[found->second];
    row.insert(row.end(), result.token_ids.begin(), result.token_ids.end());
  });
  return rows;
}

}  // namespace sluice::offload
