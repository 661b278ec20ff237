// Takes one kind of wait away and shows that the recorded timeline tells. A delay would show it on most days;
// so that it does on every day, the step that should be waited for is held until the step that should wait
// has started. Which two steps these are is found beforehand: the schedules are built with and without the
// waits, and a pair is tried whose order only the missing waits gave.
//
// These runs race on purpose, so a thread sanitizer is no place for them (label e2e_long).
#include <atomic>
#include <chrono>
#include <optional>
#include <set>
#include <thread>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "policy/build_pass.h"
#include "tests/e2e/small_model.h"

namespace sluice {
namespace {

using policy::HazardKind;
using policy::HazardTracker;
using policy::kNumHazardKinds;
using policy::kNumLanes;
using policy::kNumResourceKinds;
using policy::lane_index;
using policy::LaneKind;
using policy::ResourceKind;
using policy::Step;
using testing::RunOutcome;

constexpr std::array<const char*, kNumResourceKinds> kResourceNames = {"weight slot",
                                                                       "weight stage",
                                                                       "inputs",
                                                                       "activation slot",
                                                                       "activation buffer",
                                                                       "activation file",
                                                                       "KV window",
                                                                       "KV stage",
                                                                       "CPU KV",
                                                                       "disk KV",
                                                                       "set qkv",
                                                                       "set attention (gpu)",
                                                                       "set attention (cpu)",
                                                                       "twin qkv",
                                                                       "twin attention",
                                                                       "results",
                                                                       "turn of the gpu lane"};
constexpr std::array<const char*, kNumHazardKinds> kHazardNames = {"read after write", "write after read",
                                                                   "write after write"};

/// A kind of wait.
struct Kind {
  std::size_t resource = 0, hazard = 0;
  std::string name() const { return fmt::format("{}, {}", kResourceNames[resource], kHazardNames[hazard]); }
  void drop_from(HazardTracker& tracker) const {
    tracker.drop(static_cast<ResourceKind>(resource), static_cast<HazardKind>(hazard));
  }
};

/// A step of a run, with how many steps of each lane are surely finished when it starts.
struct Ordered {
  Step step;
  std::int64_t schedule = 0;  // 0 is the prologue
  std::array<std::int64_t, kNumLanes> finished{};
};

/// The whole run as the builder orders it.
std::vector<Ordered> order_of(const RunOutcome& run, const std::optional<Kind>& dropped) {
  policy::ScheduleBuilder builder(run.shape);
  if (dropped) dropped->drop_from(builder.hazards());
  std::vector<Ordered> all;
  std::array<std::vector<std::size_t>, kNumLanes> lanes;
  policy::Schedule schedule;
  const auto add = [&](std::int64_t number) {
    for (const Step& step : schedule.steps) {
      Ordered ordered{.step = step, .schedule = number};
      const auto join = [&](LaneKind lane, std::int64_t count) {
        const Ordered& earlier = all[lanes[lane_index(lane)].at(static_cast<std::size_t>(count - 1))];
        for (std::size_t l = 0; l < kNumLanes; ++l)
          ordered.finished[l] = std::max(ordered.finished[l], earlier.finished[l]);
        ordered.finished[lane_index(lane)] = std::max(ordered.finished[lane_index(lane)], count);
      };
      if (step.seq > 1) join(step.lane, step.seq - 1);
      for (const policy::Wait& wait : step.wait_list()) join(wait.lane, wait.count);
      lanes[lane_index(step.lane)].push_back(all.size());
      all.push_back(ordered);
    }
  };
  builder.build_prologue(schedule);
  add(0);
  for (const policy::Pass& pass : run.passes) {
    builder.build_pass(pass, schedule);
    add(pass.number + 1);
  }
  return all;
}

/// `late` starts before `early` ends once the waits are missing.
struct Pair {
  Step early, late;
};

/// True if the engine hands out the schedule of `late` while `early` runs: it composes a pass when the
/// results of the one before have come, and the one before that is finished.
bool can_overlap(const std::vector<Ordered>& mutated, const Ordered& early, const Ordered& late) {
  if (late.schedule == early.schedule) return true;
  if (late.schedule > early.schedule + 1) return false;
  for (const Ordered& ordered : mutated) {
    if (ordered.schedule != early.schedule || ordered.step.lane != LaneKind::kD2hUrgent) continue;
    if (early.step.lane == LaneKind::kD2hUrgent) return false;
    if (ordered.finished[lane_index(early.step.lane)] >= early.step.seq) return false;
  }
  return true;
}

/// Pairs whose order is gone with the waits, of different step kinds, at most a few.
std::vector<Pair> pairs_of(const RunOutcome& run, const std::vector<Ordered>& whole, const Kind& kind) {
  constexpr std::size_t kMost = 8;
  const std::vector<Ordered> mutated = order_of(run, kind);
  std::vector<Pair> pairs;
  std::set<std::pair<policy::StepKind, policy::StepKind>> seen;
  for (std::size_t i = 0; i < whole.size() && pairs.size() < kMost; ++i) {
    for (std::size_t lane = 0; lane < kNumLanes; ++lane) {
      const std::int64_t seq = whole[i].finished[lane];
      if (mutated[i].finished[lane] >= seq) continue;
      const auto early = std::find_if(mutated.begin(), mutated.end(), [&](const Ordered& ordered) {
        return lane_index(ordered.step.lane) == lane && ordered.step.seq == seq;
      });
      if (!can_overlap(mutated, *early, mutated[i])) continue;
      if (seen.insert({early->step.kind, mutated[i].step.kind}).second)
        pairs.push_back({early->step, mutated[i].step});
    }
  }
  return pairs;
}

bool is(const Step& a, const Step& b) { return a.lane == b.lane && a.seq == b.seq; }

struct Scenario {
  const char* name;
  offload::ModelSource source;
  policy::Placement placement;
  std::vector<offload::Request> requests;
};

/// No end tokens and no sampling: the passes depend on lengths alone, so that a wrong token changes no
/// schedule.
std::vector<offload::Request> plain_requests(const ModelSpec& spec) {
  constexpr std::array<std::pair<int, int>, 7> kLengths = {
      {{70, 3}, {1, 4}, {130, 2}, {64, 3}, {10, 5}, {200, 2}, {33, 3}}};
  std::vector<offload::Request> requests;
  for (const auto& [prompt_len, gen_len] : kLengths) {
    offload::Request request;
    request.prompt_ids =
        testing::prompt_of(prompt_len, spec.vocab_size, static_cast<std::uint32_t>(prompt_len));
    request.max_new_tokens = gen_len;
    request.ignore_eos = true;
    requests.push_back(std::move(request));
  }
  return requests;
}

std::vector<Scenario> scenarios() {
  const ModelSpec spec = testing::small_spec();
  const auto scenario = [&](const char* name, const std::vector<int>& percents, std::int64_t batches,
                            bool cpu_attention) {
    Scenario s{name, testing::synthetic(spec), testing::placed(percents, 2, batches, cpu_attention),
               plain_requests(spec)};
    s.placement.max_tokens_per_gpu_batch = 150;
    return s;
  };
  Scenario apart = scenario("weights on CPU and disk, no prefetch", {0, 50, 100, 0, 100, 0}, 2, false);
  apart.placement.prefetch = false;
  return {scenario("weights on disk", {0, 0, 100, 0, 100, 0}, 2, false),
          scenario("KV on disk", {100, 0, 0, 0, 100, 0}, 2, false),
          scenario("KV on disk, CPU attention", {100, 0, 0, 0, 100, 0}, 2, true),
          scenario("KV on CPU, CPU attention", {100, 0, 0, 100, 100, 0}, 2, true),
          scenario("everything on CPU", {0, 100, 0, 100, 0, 100}, 3, true),
          scenario("activations on disk", {100, 0, 100, 0, 0, 0}, 3, false),
          scenario("everything everywhere", {20, 40, 10, 40, 0, 50}, 2, true),
          std::move(apart)};
}

/// Runs with the waits missing and `pair.early` held; true if the timeline shows a violation.
bool shows(const Scenario& scenario, const Kind& kind, const Pair& pair) {
  std::atomic<bool> late_started{false};
  offload::RunHooks hooks;
  hooks.mutate = [&](HazardTracker& tracker) { kind.drop_from(tracker); };
  hooks.before_step = [&](const Step& step) {
    if (is(step, pair.late)) late_started = true;
    if (!is(step, pair.early)) return;
    // The time limit only matters if the pair was ordered after all.
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(1);
    while (!late_started && std::chrono::steady_clock::now() < limit)
      std::this_thread::sleep_for(std::chrono::microseconds(100));
  };
  const RunOutcome outcome =
      testing::run_requests(scenario.source, scenario.placement, scenario.requests, nullptr, &hooks);
  return !outcome.violations.empty();
}

TEST(Mutation, TheTimelineShowsEveryKindOfMissingWait) {
  struct Prepared {
    Scenario scenario;
    RunOutcome run;
    std::vector<Ordered> whole;
  };
  std::vector<Prepared> prepared;
  for (Scenario& scenario : scenarios()) {
    RunOutcome run = testing::run_requests(scenario.source, scenario.placement, scenario.requests);
    ASSERT_TRUE(run.violations.empty()) << scenario.name << ": " << run.violations.front();
    std::vector<Ordered> whole = order_of(run, std::nullopt);
    prepared.push_back({std::move(scenario), std::move(run), std::move(whole)});
  }
  int shown = 0;
  for (std::size_t resource = 0; resource < kNumResourceKinds; ++resource) {
    for (std::size_t hazard = 0; hazard < kNumHazardKinds; ++hazard) {
      const Kind kind{resource, hazard};
      int tried = 0;
      bool is_shown = false;
      for (const Prepared& p : prepared) {
        for (const Pair& pair : is_shown ? std::vector<Pair>{} : pairs_of(p.run, p.whole, kind)) {
          ++tried;
          is_shown = shows(p.scenario, kind, pair);
          std::cout << fmt::format("{}: {} before {} of {} ({}): {}\n", kind.name(),
                                   step_kind_name(pair.late.kind), step_kind_name(pair.early.kind),
                                   lane_name(pair.early.lane), p.scenario.name,
                                   is_shown ? "shown" : "no violation");
          if (is_shown) break;
        }
      }
      EXPECT_TRUE(is_shown || tried == 0) << kind.name() << ": " << tried << " pairs of steps, none shows it";
      shown += is_shown ? 1 : 0;
    }
  }
  std::cout << fmt::format("{} kinds shown\n", shown);
  EXPECT_GE(shown, 20);
}

}  // namespace
}  // namespace sluice
