#include "offload/engine.h"

#include <algorithm>
#include <exception>
#include <thread>
#include <utility>

#include "core/log.h"
#include "core/units.h"
#include "offload/choose_device.h"
#include "offload/clock.h"
#include "offload/executor/executor.h"
#include "offload/executor/model_runner.h"
#include "offload/executor/run_hooks.h"
#include "offload/executor/trace.h"
#include "offload/io/disk_dir.h"
#include "offload/memory/tier_memory.h"
#include "offload/memory/usable_memory.h"
#include "offload/plan_run.h"
#include "offload/seating.h"
#include "offload/weights/resident_loader.h"
#include "offload/weights/weight_store.h"
#include "policy/build_pass.h"

namespace sluice::offload {
namespace {

using policy::Pass;

EngineOptions with_device_chosen(EngineOptions options) {
  options.device = choose_device(options.device);
  return options;
}

const RunHooks& hooks_of(const EngineOptions& options) {
  static const RunHooks none;
  return options.hooks ? *options.hooks : none;
}

std::unique_ptr<kernels::Device> make_device(const DeviceChoice& asked, kernels::ThreadPool& pool,
                                             const RunHooks& hooks) {
  std::unique_ptr<kernels::Device> device = make_device(asked, pool);
  return hooks.wrap_device ? hooks.wrap_device(std::move(device)) : std::move(device);
}

std::unique_ptr<BlockIo> make_disk(const RunHooks& hooks) {
  return hooks.make_disk ? hooks.make_disk() : make_block_io({});
}

}  // namespace

struct Engine::Impl {
  /// A schedule with the pass it serves; two take turns, so that a pass is composed while the last one
  /// drains.
  struct Slot {
    Pass pass;
    policy::Schedule schedule;
    std::vector<policy::StepTime> times;
    bool submitted = false;
  };

  Impl(const ModelSource& model, const Tokenizer* tokenizer, const EngineOptions& asked)
      : options(with_device_chosen(asked)),
        hooks(hooks_of(options)),
        source(model),
        pool(asked.num_threads > 0 ? asked.num_threads : default_threads(options.device)),
        device(make_device(options.device, pool, hooks)),
        free_at_start(device->has_own_memory() ? device->free_bytes() : 0),
        planned(plan_run(source, options, *device)),
        shape(planned.shape),
        budget(planned.budget_bytes),
        valid_vocab(tokenizer != nullptr ? std::min(tokenizer->vocab_size(), shape.spec.vocab_size)
                                         : shape.spec.vocab_size),
        builder(shape),
        seating(shape, tokenizer, valid_vocab) {
    options.placement = shape.placement;
    options.num_threads = pool.num_threads();
    options.budget_bytes = planned.budget_bytes;
    if (planned.memory.total[Tier::kDisk] > 0) disk_dir.emplace(options.disk_dir);
    memory.emplace(planned.memory, budget, disk_dir ? disk_dir->path() : std::filesystem::path(),
                   pool.num_threads(), *device, options.host_weights);
    weights.emplace(source, shape, *memory);
    kv.emplace(shape, *memory);
    beside_tiers(
        [&] { runner.emplace(shape, *memory, *weights, *kv, *device, pool, valid_vocab, hooks.poison); });
    runner->stream(policy::LaneKind::kGpu)->set_batch_invariance(options.batch_invariance);
    for (Slot& slot : slots) slot.schedule.reserve(builder.max_steps());
    prologue.schedule.reserve(builder.max_steps());
    if (!options.trace_file.empty()) trace.emplace(options.trace_file);
    if (hooks.mutate) hooks.mutate(builder.hazards());
    if (hooks.on_shape) hooks.on_shape(shape);
  }

  /// What is taken at start beside the tiers may be refused because of what they take: says what that is.
  template <class Body>
  void beside_tiers(const Body& body) const {
    try {
      body();
    } catch (const Error& e) {
      if (e.code() != Code::kOutOfMemory) throw;
      throw with_plan(e, fmt::format("{}; {}", to_string(planned.memory, Tier::kGpu),
                                     to_string(planned.memory, Tier::kCpu)));
    }
  }

  /// Whether waking a thread takes a share of a decode pass that matters: nothing streams, and cores are to
  /// spare.
  bool passes_are_short() const {
    constexpr unsigned kSpinners = 5;
    return shape.weight_slot_bytes == 0 && shape.num_windows == 0 && shape.max_cpu_rows == 0 &&
           std::thread::hardware_concurrency() > kSpinners + 1;
  }

  // ---- Start.

  void start(std::stop_token stop) {
    runner->stream(policy::LaneKind::kGpu)->bind_thread();  // loading and warming up happen on this thread
    std::unique_ptr<BlockIo> disk_read = make_disk(hooks);
    std::unique_ptr<BlockIo> disk_write = make_disk(hooks);
    {
      const std::unique_ptr<BlockIo> loader = make_block_io({});
      const double began = clock_sec();
      beside_tiers([&] {
        load_resident_weights(
            {source, shape, *memory, *device, *runner->stream(policy::LaneKind::kH2d), *loader, pool, stop});
        runner->warm_up();
      });
      stats.load_sec = clock_sec() - began;
    }
    weights->open_files(*disk_read);
    kv->open_file(*disk_read, *disk_write);
    runner->open_file(*disk_read, *disk_write);
    if (planned.memory.bytes(policy::Purpose::kWeightStage, Tier::kCpu) > 0) {
      disk_read->register_memory(memory->block(policy::Purpose::kWeightStage, Tier::kCpu));
    }
    executor.emplace(*runner, std::move(disk_read), std::move(disk_write), hooks.before_step,
                     hooks.make_thread);
    builder.build_prologue(prologue.schedule);
    submit_slot(prologue);
  }

  void submit_slot(Slot& slot) {
    const bool timed = trace || hooks.on_finished;
    if (timed) slot.times.assign(slot.schedule.steps.size(), {});
    slot.submitted = true;
    executor->submit(slot.schedule, timed ? &slot.times : nullptr);
  }

  /// Waits until every step of the slot is finished, and hands its timeline on.
  void finish_slot(Slot& slot) {
    if (!slot.submitted) return;
    if (&slot != &prologue) finish_slot(prologue);  // it came first
    executor->wait_all(slot.schedule.last_seq);
    slot.submitted = false;
    if (executor->skipping()) return;
    if (trace) trace->add(slot.schedule, slot.times);
    if (hooks.on_finished)
      hooks.on_finished(slot.schedule, &slot == &prologue ? nullptr : &slot.pass, slot.times);
  }

  // ---- Run.

  void run(std::stop_token stop, const std::function<void(Result)>& on_result) {
    SLUICE_CHECK(!spent, Code::kCancelled, "an earlier run of this engine failed or was stopped",
                 "make a new engine");
    spent = true;  // until this run has come to its end
    if (!executor) start(stop);
    const double started = clock_sec();
    executor->set_wait_mode(passes_are_short() ? WaitMode::kSpin : WaitMode::kSleep);
    std::exception_ptr failure;
    {
      const std::stop_callback on_stop(stop, [this] { executor->skip_rest(); });
      try {
        run_passes(stop, on_result, started);
        // What is left are transfers for a pass that may never come; only a watched run waits for them.
        if (trace || hooks.on_finished) drain();
        if (trace) trace->end_run();
      } catch (...) {
        failure = std::current_exception();
        executor->skip_rest();
      }
    }
    if (executor->skipping()) executor->wait_all(last_submitted());
    executor->set_wait_mode(WaitMode::kSleep);
    stats.wall_sec += clock_sec() - started;
    executor->status().throw_if_failed();
    if (failure) std::rethrow_exception(failure);
    SLUICE_CHECK(!executor->skipping(), Code::kCancelled, "the run was stopped",
                 "results finished before are kept");
    spent = false;
  }

  void run_passes(std::stop_token stop, const std::function<void(Result)>& on_result, double started) {
    double last = clock_sec();
    while (!executor->skipping()) {
      seating.apply_cancels(on_result);
      Slot& slot = slots[static_cast<std::size_t>(next_pass % 2)];
      finish_slot(slot);
      if (!seating.compose(next_pass, slot.pass)) return;
      ++next_pass;
      seating.write_inputs(slot.pass, *runner);
      runner->set_pass(slot.pass);
      builder.build_pass(slot.pass, slot.schedule);
      submit_slot(slot);
      const std::size_t results_lane = policy::lane_index(policy::LaneKind::kD2hUrgent);
      executor->wait(policy::LaneKind::kD2hUrgent, slot.schedule.last_seq[results_lane]);
      if (stop.stop_requested() || executor->skipping()) return;
      const std::int64_t generated = seating.read_results(slot.pass, *runner, stats, on_result);
      const double now = clock_sec();
      account(slot.pass, generated, now - last, now - started);
      last = now;
    }
  }

  /// Waits for every step that was submitted and hands the timelines on in their order.
  void drain() {
    finish_slot(prologue);
    for (std::int32_t i = 0; i < 2; ++i) finish_slot(slots[static_cast<std::size_t>((next_pass + i) % 2)]);
  }

  std::array<std::int64_t, policy::kNumLanes> last_submitted() const {
    std::array<std::int64_t, policy::kNumLanes> last = prologue.schedule.last_seq;
    for (const Slot& slot : slots) {
      for (std::size_t i = 0; i < policy::kNumLanes; ++i)
        last[i] = std::max(last[i], slot.submitted ? slot.schedule.last_seq[i] : 0);
    }
    return last;
  }

  void account(const Pass& pass, std::int64_t generated, double sec, double since_start) {
    ++stats.num_passes;
    if (stats.generated_tokens == 0 && generated > 0) stats.first_token_sec = since_start;
    stats.generated_tokens += generated;
    (pass.has_prefill ? stats.prefill_sec : stats.decode_sec) += sec;
    (pass.has_prefill ? stats.prefill_passes_tokens : stats.decode_passes_tokens) += generated;
  }

  RunStats run_stats() const {
    RunStats result = stats;
    result.device = device->description();
    result.planned_bytes = planned.memory.total;
    for (Tier tier : kTiers) result.reserved_bytes[tier] = budget.reserved(tier);
    try {
      if (device->has_own_memory()) result.device_bytes = free_at_start - device->free_bytes();
      result.peak_resident_bytes = peak_resident_bytes();
    } catch (const Error& e) {
      log_debug("{}", e.what());  // a figure for the report is no reason to fail
    }
    if (!executor) return result;
    if (executor->first_layer_end_sec() > 0)
      result.first_layer_sec = executor->first_layer_end_sec() - made_sec;
    const auto counters = executor->counters();
    for (std::size_t i = 0; i < policy::kNumLanes; ++i) {
      result.lanes.push_back({std::string(lane_name(static_cast<policy::LaneKind>(i))), counters[i].bytes,
                              counters[i].steps, counters[i].busy_sec, counters[i].stalled_sec});
    }
    return result;
  }

  // Fixed after construction.
  const double made_sec = clock_sec();
  EngineOptions options;
  const RunHooks& hooks;
  WeightSource source;
  kernels::ThreadPool pool;
  const std::unique_ptr<kernels::Device> device;
  const std::int64_t free_at_start;  // bytes of the device's own memory
  PlannedRun planned;
  const policy::RunShape& shape;
  MemoryBudget budget;
  const std::int64_t valid_vocab;  // ids that the tokenizer knows
  std::optional<DiskDir> disk_dir;
  std::optional<TierMemory> memory;
  std::optional<WeightStore> weights;
  std::optional<KvCache> kv;
  std::optional<ModelRunner> runner;

  // Run thread only.
  policy::ScheduleBuilder builder;
  Slot prologue;
  std::array<Slot, 2> slots;
  std::int32_t next_pass = 0;
  bool spent = false;  // a run failed or was stopped
  RunStats stats;
  std::optional<TraceWriter> trace;

  Seating seating;  // submit and cancel from any thread, the rest from the run's

  std::optional<Executor> executor;  // last: its lanes stop before what they use is gone
};

Engine::Engine(const ModelSource& source, const Tokenizer* tokenizer, const EngineOptions& options)
    : impl_(std::make_unique<Impl>(source, tokenizer, options)) {}
Engine::~Engine() = default;

const ModelSpec& Engine::spec() const { return impl_->shape.spec; }
const EngineOptions& Engine::options() const { return impl_->options; }
std::int64_t Engine::submit(Request request) { return impl_->seating.submit(std::move(request)); }
void Engine::cancel(std::int64_t index) { impl_->seating.cancel(index); }
void Engine::run(std::stop_token stop, const std::function<void(Result)>& on_result) {
  impl_->run(std::move(stop), on_result);
}
RunStats Engine::stats() const { return impl_->run_stats(); }

}  // namespace sluice::offload
