#include "policy/place_log.h"

#include <algorithm>

#include <fmt/format.h>

namespace sluice::policy::detail {

bool PlaceLog::before(const Seen& a, const Seen& b) const {
  if (timed) return a.time.end_sec <= b.time.start_sec;
  return b.clock[lane_index(a.step.lane)] >= a.step.seq;
}

void PlaceLog::complain(const Seen& seen, const std::string& problem) {
  violations.push_back(fmt::format("pass {} {} {} unit {} batch {} (step {} of its lane): {}", seen.step.pass,
                                   lane_name(seen.step.lane), step_kind_name(seen.step.kind), seen.step.unit,
                                   seen.step.gpu_batch, seen.step.seq, problem));
}

void PlaceLog::set_clock(Seen& seen) {
  const std::size_t own = lane_index(seen.step.lane);
  auto& lane = lanes_[own];
  if (seen.step.seq != static_cast<std::int64_t>(lane.size()) + 1) complain(seen, "does not follow its lane");
  if (!lane.empty()) seen.clock = lane.back();
  if (!is_disk(seen.step.lane)) seen.clock[own] = seen.step.seq - 1;  // disk steps overlap
  for (const Wait& wait : seen.step.wait_list()) {
    const auto& other = lanes_[lane_index(wait.lane)];
    if (wait.count > static_cast<std::int64_t>(other.size()) || wait.count < 1) {
      complain(seen, fmt::format("waits for step {} of {}, which does not come first", wait.count,
                                 lane_name(wait.lane)));
      continue;
    }
    const Clock& theirs = other[static_cast<std::size_t>(wait.count - 1)];
    for (std::size_t l = 0; l < kNumLanes; ++l) seen.clock[l] = std::max(seen.clock[l], theirs[l]);
    seen.clock[lane_index(wait.lane)] = std::max(seen.clock[lane_index(wait.lane)], wait.count);
  }
  lane.push_back(seen.clock);
}

void PlaceLog::touch(const Seen& seen, Key key, bool write) {
  auto& history = places_[key];
  for (const auto& [earlier, wrote] : history) {
    const bool itself = earlier.step.lane == seen.step.lane && earlier.step.seq == seen.step.seq;
    if (!itself && (wrote || write) && !before(earlier, seen)) {
      complain(
          seen,
          fmt::format("is not ordered after pass {} {} {} unit {} batch {}, which touches the same place {}",
                      earlier.step.pass, lane_name(earlier.step.lane), step_kind_name(earlier.step.kind),
                      earlier.step.unit, earlier.step.gpu_batch, static_cast<int>(std::get<0>(key))));
      break;  // one sentence per place is enough
    }
  }
  if (write) history.clear();
  history.emplace_back(seen, write);
}

void PlaceLog::expect(const Seen& seen, Place place, std::int64_t index, const Content& wanted,
                      const char* what) {
  const auto found = contents_.find({place, index, 0});
  const Content held = found == contents_.end() ? Content{} : found->second;
  if (held == wanted) return;
  complain(seen, fmt::format("{} {} holds pass {} unit {} batch {}", what, index, held.pass, held.unit,
                             held.batch));
}

void PlaceLog::hold(Place place, std::int64_t index, const Content& content) {
  contents_[{place, index, 0}] = content;
}

void PlaceLog::in_range(const Seen& seen, std::int64_t index, std::int64_t count, const char* what) {
  if (index < 0 || index >= count) complain(seen, fmt::format("{} {} of {}", what, index, count));
}

}  // namespace sluice::policy::detail
