#include "policy/simulate.h"

#include <algorithm>

#include "core/error.h"
#include "policy/build_pass.h"
#include "policy/lane_clock.h"
#include "policy/rates.h"
#include "policy/step_costs.h"

namespace sluice::policy {
namespace {

using detail::LaneClock;
using detail::PlayedSchedule;

void check_requests(const RunShape& shape, std::span<const RequestLength> requests) {
  const std::int64_t longest = shape.pages_per_seat * kKvPageTokens;
  for (const RequestLength& request : requests) {
    const std::int64_t needed = Workload::seat_tokens(request.prompt_len, request.gen_len);
    SLUICE_CHECK(request.prompt_len >= 1 && request.gen_len >= 0 && needed <= longest, Code::kInvalidArgument,
                 fmt::format("a request of {} prompt and {} generated tokens needs a seat of {}, the longest "
                             "is of {}",
                             request.prompt_len, request.gen_len, needed, longest),
                 "plan with the longest request in the workload");
  }
}

/// The engine's loop over passes (offload/engine.cc), on a simulated clock.
class Player {
 public:
  Player(const RunShape& shape, const Rates& rates, const ModelProducts& products,
         std::span<const RequestLength> requests, const OnSimulated& on_simulated)
      : rates_(rates),
        costs_(shape, rates_, products),
        builder_(shape),
        queue_(shape, requests),
        clock_(rates_),
        on_simulated_(on_simulated) {}

  Simulation run() {
    builder_.build_prologue(prologue_.played.schedule);
    submit(prologue_);
    double last = 0;
    for (std::size_t number = 0;; ++number) {
      Slot& slot = slots_[number % 2];
      finish(slot);
      if (!queue_.compose(slot.pass)) break;
      costs_.set_pass(slot.pass);
      builder_.build_pass(slot.pass, slot.played.schedule);
      clock_.run_until(clock_.now_sec() + rates_.pass_overhead_sec());
      submit(slot);
      clock_.run_until(LaneKind::kD2hUrgent, slot.played.schedule.last_seq[lane_index(LaneKind::kD2hUrgent)]);
      account(slot.pass, clock_.now_sec() - last);
      last = clock_.now_sec();
    }
    result_.total_sec = last;
    if (on_simulated_) {  // what is left are transfers for a pass that does not come
      finish(prologue_);
      for (std::size_t i = 0; i < 2; ++i) finish(slots_[(result_.passes.size() + i) % 2]);
    }
    return std::move(result_);
  }

 private:
  struct Slot {
    Pass pass;
    PlayedSchedule played;
    bool submitted = false;
  };

  void submit(Slot& slot) {
    const Schedule& schedule = slot.played.schedule;
    slot.played.times.assign(schedule.steps.size(), {});
    slot.played.work_sec.clear();
    for (const Step& step : schedule.steps) slot.played.work_sec.push_back(costs_.work_sec(step));
    slot.submitted = true;
    clock_.submit(slot.played);
  }

  void finish(Slot& slot) {
    if (!slot.submitted) return;
    if (&slot != &prologue_) finish(prologue_);  // it came first
    clock_.run_until(slot.played.schedule.last_seq);
    slot.submitted = false;
    if (on_simulated_)
      on_simulated_(slot.played.schedule, &slot == &prologue_ ? nullptr : &slot.pass, slot.played.times);
  }

  void account(const Pass& pass, double sec) {
    SimulatedPass played{.sec = sec, .has_prefill = pass.has_prefill};
    for (const Segment& segment : pass.segments)
      played.prompt_tokens += segment.decode ? 0 : segment.num_tokens;
    played.generated = queue_.advance(pass, clock_.now_sec() - sec, clock_.now_sec());
    result_.longest_request_sec = queue_.longest_request_sec();
    if (result_.generated_tokens == 0 && played.generated > 0) result_.first_token_sec = clock_.now_sec();
    result_.generated_tokens += played.generated;
    result_.prompt_tokens += played.prompt_tokens;
    (pass.has_prefill ? result_.prefill_sec : result_.decode_sec) += sec;
    result_.passes.push_back(played);
    result_.lanes = clock_.lanes();  // what works after the last results is not part of the run
  }

  const Rates& rates_;
  StepCosts costs_;
  ScheduleBuilder builder_;
  QueuePlayer queue_;
  LaneClock clock_;
  const OnSimulated& on_simulated_;
  Slot prologue_;
  std::array<Slot, 2> slots_;
  Simulation result_;
};

}  // namespace

Simulation simulate(const RunShape& shape, const HardwareProfile& hardware,
                    std::span<const RequestLength> requests, const SimulationOptions& options,
                    const OnSimulated& on_simulated) {
  return simulate(shape, Rates(hardware, options.attention_threads),
                  ModelProducts(shape.spec, options.formats), requests, on_simulated);
}

Simulation simulate(const RunShape& shape, const Rates& rates, const ModelProducts& products,
                    std::span<const RequestLength> requests, const OnSimulated& on_simulated) {
  check_requests(shape, requests);
  return Player(shape, rates, products, requests, on_simulated).run();
}

}  // namespace sluice::policy
