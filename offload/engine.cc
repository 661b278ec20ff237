#include "offload/engine.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <exception>
#include <map>
#include <set>
#include <thread>
#include <utility>

#include "core/log.h"
#include "core/mutex.h"
#include "core/units.h"
#include "offload/check_request.h"
#include "offload/choose_device.h"
#include "offload/executor/executor.h"
#include "offload/executor/model_runner.h"
#include "offload/executor/run_hooks.h"
#include "offload/executor/trace.h"
#include "offload/io/disk_dir.h"
#include "offload/memory/tier_memory.h"
#include "offload/memory/usable_memory.h"
#include "offload/plan_run.h"
#include "offload/sequence.h"
#include "offload/weights/resident_loader.h"
#include "offload/weights/weight_store.h"
#include "policy/build_pass.h"
#include "policy/compose_pass.h"

namespace sluice::offload {
namespace {

using policy::Pass;
using policy::Segment;

/// Waiting requests that the composer sees, in blocks: enough to find short ones behind long ones.
constexpr std::size_t kLookAhead = 4;

double clock_sec() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

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

  Impl(const ModelSource& model, const Tokenizer* tokenizer_or_null, const EngineOptions& asked)
      : options(with_device_chosen(asked)),
        hooks(hooks_of(options)),
        tokenizer(tokenizer_or_null),
        source(model),
        pool(asked.num_threads > 0 ? asked.num_threads : default_threads(options.device)),
        device(make_device(options.device, pool, hooks)),
        planned(plan_run(source, options, *device)),
        shape(planned.shape),
        budget(planned.budget_bytes),
        valid_vocab(tokenizer != nullptr ? std::min(tokenizer->vocab_size(), shape.spec.vocab_size)
                                         : shape.spec.vocab_size),
        builder(shape),
        seats(static_cast<std::size_t>(shape.placement.block_size())),
        sequences(seats.size()) {
    options.placement = shape.placement;
    options.num_threads = pool.num_threads();
    options.budget_bytes = planned.budget_bytes;
    if (planned.memory.total[Tier::kDisk] > 0) disk_dir.emplace(options.disk_dir);
    memory.emplace(planned.memory, budget, disk_dir ? disk_dir->path() : std::filesystem::path(),
                   pool.num_threads(), *device, options.host_weights);
    weights.emplace(source, shape, *memory);
    kv.emplace(shape, *memory);
    runner.emplace(shape, *memory, *weights, *kv, *device, pool, valid_vocab, hooks.poison);
    runner->stream(policy::LaneKind::kGpu)->set_batch_invariance(options.batch_invariance);
    for (Slot& slot : slots) slot.schedule.reserve(builder.max_steps());
    prologue.schedule.reserve(builder.max_steps());
    if (!options.trace_file.empty()) trace.emplace(options.trace_file);
    if (hooks.mutate) hooks.mutate(builder.hazards());
    if (hooks.on_shape) hooks.on_shape(shape);
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
      load_resident_weights(
          {source, shape, *memory, *device, *runner->stream(policy::LaneKind::kH2d), *loader, pool, stop});
      runner->warm_up();
      stats.load_sec = clock_sec() - began;
    }
    weights->open_files(*disk_read);
    kv->open_file(*disk_read, *disk_write);
    runner->open_file(*disk_read, *disk_write);
    if (planned.memory.bytes(policy::Purpose::kWeightStage, Tier::kCpu) > 0) {
      disk_read->register_memory(memory->block(policy::Purpose::kWeightStage, Tier::kCpu));
    }
    executor.emplace(*runner, std::move(disk_read), std::move(disk_write), hooks.before_step);
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

  // ---- Requests.

  std::int64_t submit(Request request) {
    check_request(request, {&shape.spec, &shape.workload, valid_vocab, tokenizer != nullptr});
    MutexLock lock(queue_mutex);
    const std::int64_t index = next_index++;
    queue.emplace_back(index, std::move(request), tokenizer, shape.spec.eos_id, shape.workload.max_total_len);
    return index;
  }

  void cancel(std::int64_t index) {
    MutexLock lock(queue_mutex);
    cancelled.insert(index);
  }

  /// Delivers the results of cancelled requests and frees their places.
  void apply_cancels(const std::function<void(Result)>& on_result) {
    std::vector<Result> results;
    {
      MutexLock lock(queue_mutex);
      if (cancelled.empty()) return;
      const std::set<std::int64_t> gone = std::exchange(cancelled, {});
      const auto is_cancelled = [&](const Sequence& sequence) { return gone.contains(sequence.index()); };
      for (Sequence& queued : queue) {
        if (is_cancelled(queued)) results.push_back(queued.take_cancelled());
      }
      std::erase_if(queue, is_cancelled);
      for (std::size_t seat = 0; seat < seats.size(); ++seat) {
        if (!seats[seat].active || !is_cancelled(*sequences[seat])) continue;
        results.push_back(sequences[seat]->take_cancelled());
        seats[seat].active = false;
        sequences[seat].reset();
      }
    }
    for (Result& result : results) on_result(std::move(result));
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
      apply_cancels(on_result);
      Slot& slot = slots[static_cast<std::size_t>(next_pass % 2)];
      finish_slot(slot);
      if (!compose(slot)) return;
      write_inputs(slot.pass);
      runner->set_pass(slot.pass);
      builder.build_pass(slot.pass, slot.schedule);
      submit_slot(slot);
      const std::size_t results_lane = policy::lane_index(policy::LaneKind::kD2hUrgent);
      executor->wait(policy::LaneKind::kD2hUrgent, slot.schedule.last_seq[results_lane]);
      if (stop.stop_requested() || executor->skipping()) return;
      const std::int64_t generated = read_results(slot.pass, on_result);
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

  /// Chooses the rows of the next pass and seats the admitted requests. False if there is nothing to do.
  bool compose(Slot& slot) {
    MutexLock lock(queue_mutex);
    waiting.clear();
    for (std::size_t i = 0; i < std::min(queue.size(), kLookAhead * seats.size()); ++i) {
      const Sequence& sequence = queue[i];
      waiting.push_back({sequence.prompt_len(), sequence.request().want_prompt_logprobs, sequence.samples(),
                         policy::Workload::seat_tokens(sequence.prompt_len(), sequence.max_new_tokens())});
    }
    policy::compose_pass(shape, seats, waiting, next_pass, slot.pass);
    if (slot.pass.empty()) {
      SLUICE_ASSERT(queue.empty());  // an empty pass while requests wait would never end
      return false;
    }
    ++next_pass;
    for (const policy::Admission& admission : slot.pass.admissions) {
      const auto seat = static_cast<std::size_t>(admission.seat);
      sequences[seat].emplace(std::move(queue[static_cast<std::size_t>(admission.waiting)]));
      sequences[seat]->reserve();
      const Sequence& sequence = *sequences[seat];
      seats[seat] = {true, 0, sequence.prompt_len(), sequence.request().want_prompt_logprobs,
                     sequence.samples()};
    }
    for (auto it = slot.pass.admissions.rbegin(); it != slot.pass.admissions.rend(); ++it) {
      queue.erase(queue.begin() + it->waiting);
    }
    return true;
  }

  template <class Visit>
  void for_wanted_rows(const Pass& pass, std::int64_t gpu_batch, Visit visit) const {
    const policy::BatchPass& batch = pass.batches[static_cast<std::size_t>(gpu_batch)];
    std::size_t row = 0;
    for (std::int32_t i = 0; i < batch.num_segments; ++i) {
      const Segment& segment = pass.segments[static_cast<std::size_t>(batch.first_segment + i)];
      for (std::int32_t r = 0; r < segment.num_wanted; ++r) visit(segment, segment.first_wanted + r, row++);
    }
  }

  void write_inputs(const Pass& pass) {
    for (std::int64_t b = 0; b < shape.placement.num_gpu_batches; ++b) {
      const policy::BatchPass& batch = pass.batches[static_cast<std::size_t>(b)];
      const BatchInputs inputs = runner->inputs(pass.number, b);
      for (std::int32_t i = 0; i < batch.num_segments; ++i) {
        const Segment& segment = pass.segments[static_cast<std::size_t>(batch.first_segment + i)];
        const Sequence& sequence = *sequences[static_cast<std::size_t>(segment.seat)];
        for (std::int32_t t = 0; t < segment.num_tokens; ++t) {
          const auto row = static_cast<std::size_t>(segment.first_row + t);
          inputs.ids[row] = sequence.token_at(segment.first_kv + t);
          inputs.position_rows[row] =
              static_cast<std::int32_t>(segment.first_kv + t + shape.spec.position_offset);
        }
      }
      for_wanted_rows(pass, b, [&](const Segment& segment, std::int32_t r, std::size_t row) {
        const Sequence& sequence = *sequences[static_cast<std::size_t>(segment.seat)];
        const Request& request = sequence.request();
        const std::int64_t next = segment.first_kv + r + 1;
        kernels::SampleRow wanted;
        wanted.choose = next >= sequence.prompt_len();
        if (wanted.choose) {
          const std::uint64_t key = request.draw_key.value_or(static_cast<std::uint64_t>(sequence.index()));
          wanted.params = request.sampling;
          wanted.draw =
              uniform_draw(request.sampling.seed, key, static_cast<std::uint64_t>(sequence.num_generated()));
          wanted.num_top = request.want_logprobs ? request.num_top_logprobs : 0;
        } else {
          wanted.target_id = sequence.token_at(next);
        }
        inputs.wanted_rows[row] = segment.first_row + r;
        inputs.sample_rows[row] = wanted;
      });
    }
  }

  /// Advances every seat of the pass and delivers finished requests. Returns the tokens generated.
  std::int64_t read_results(const Pass& pass, const std::function<void(Result)>& on_result) {
    std::int64_t generated = 0;
    for (const Segment& segment : pass.segments)
      seats[static_cast<std::size_t>(segment.seat)].kv_len += segment.num_tokens;
    for (std::int64_t b = 0; b < shape.placement.num_gpu_batches; ++b) {
      const BatchResults results = runner->results(b);
      for_wanted_rows(pass, b, [&](const Segment& segment, std::int32_t r, std::size_t row) {
        Sequence& sequence = *sequences[static_cast<std::size_t>(segment.seat)];
        const kernels::SampledRow& sampled = results.rows[row];
        SLUICE_CHECK(
            sampled.token_id != kernels::kNanToken, Code::kInternal,
            fmt::format("the logits of request {} at position {} are not numbers", sequence.index(),
                        segment.first_kv + r),
            "check the weights (sluice inspect --verify); activations beyond fp16's 65504 also give this");
        if (segment.first_kv + r + 1 < sequence.prompt_len()) {
          sequence.add_prompt_logprob(sampled.target_logprob);
          return;
        }
        ++generated;
        const auto num_top = static_cast<std::size_t>(
            sequence.request().want_logprobs ? sequence.request().num_top_logprobs : 0);
        const std::span<const ScoredToken> top{
            results.top.data + static_cast<std::int64_t>(row) * results.top.stride, num_top};
        if (sequence.add_token(sampled.token_id, sampled.token_logprob, top))
          finished.push_back(segment.seat);
      });
    }
    for (const Segment& segment : pass.segments) {
      const auto seat = static_cast<std::size_t>(segment.seat);
      if (!sequences[seat]->samples() && seats[seat].kv_len == seats[seat].prompt_len)
        finished.push_back(segment.seat);
    }
    for (const std::int32_t seat : finished) {
      Sequence& sequence = *sequences[static_cast<std::size_t>(seat)];
      stats.requests_done += 1;
      stats.prompt_tokens += sequence.prompt_len();
      Result result = sequence.take_result();
      sequences[static_cast<std::size_t>(seat)].reset();
      seats[static_cast<std::size_t>(seat)].active = false;
      on_result(std::move(result));
    }
    finished.clear();
    return generated;
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
      result.peak_resident_bytes = peak_resident_bytes();
    } catch (const Error& e) {
      log_debug("{}", e.what());  // a figure for the report is no reason to fail
    }
    if (!executor) return result;
    const auto counters = executor->counters();
    for (std::size_t i = 0; i < policy::kNumLanes; ++i) {
      result.lanes.push_back({std::string(lane_name(static_cast<policy::LaneKind>(i))), counters[i].bytes,
                              counters[i].steps, counters[i].busy_sec, counters[i].stalled_sec});
    }
    return result;
  }

  // Fixed after construction.
  EngineOptions options;
  const RunHooks& hooks;
  const Tokenizer* tokenizer;
  WeightSource source;
  kernels::ThreadPool pool;
  const std::unique_ptr<kernels::Device> device;
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
  std::vector<policy::SeatState> seats;
  std::vector<std::optional<Sequence>> sequences;
  std::vector<policy::WaitingRequest> waiting;
  std::vector<std::int32_t> finished;
  Slot prologue;
  std::array<Slot, 2> slots;
  std::int32_t next_pass = 0;
  bool spent = false;  // a run failed or was stopped
  RunStats stats;
  std::optional<TraceWriter> trace;

  // Any thread.
  Mutex queue_mutex;
  std::deque<Sequence> queue SLUICE_GUARDED_BY(queue_mutex);
  std::int64_t next_index SLUICE_GUARDED_BY(queue_mutex) = 0;
  std::set<std::int64_t> cancelled SLUICE_GUARDED_BY(queue_mutex);

  std::optional<Executor> executor;  // last: its lanes stop before what they use is gone
};

Engine::Engine(const ModelSource& source, const Tokenizer* tokenizer, const EngineOptions& options)
    : impl_(std::make_unique<Impl>(source, tokenizer, options)) {}
Engine::~Engine() = default;

const ModelSpec& Engine::spec() const { return impl_->shape.spec; }
const EngineOptions& Engine::options() const { return impl_->options; }
std::int64_t Engine::submit(Request request) { return impl_->submit(std::move(request)); }
void Engine::cancel(std::int64_t index) { impl_->cancel(index); }
void Engine::run(std::stop_token stop, const std::function<void(Result)>& on_result) {
  impl_->run(std::move(stop), on_result);
}
RunStats Engine::stats() const { return impl_->run_stats(); }

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
