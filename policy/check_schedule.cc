#include "policy/check_schedule.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "policy/kv_traffic.h"
#include "policy/place_log.h"

namespace sluice::policy {

using detail::Content;
using detail::Place;
using detail::Seen;

struct ScheduleChecker::Impl : detail::PlaceLog {
  explicit Impl(const RunShape& run_shape) : shape(run_shape) {
    for (Tier tier : kTiers) {
      stored[tier].assign(static_cast<std::size_t>(num_units(shape.spec) * shape.placement.block_size()), 0);
    }
  }

  // ---- Weights.

  void load_weights(const Seen& seen) {
    const Step& step = seen.step;
    const UnitStream& unit = shape.units[static_cast<std::size_t>(step.unit)];
    in_range(seen, step.weight_slot, shape.num_weight_slots, "weight slot");
    in_range(seen, step.piece, shape.num_pieces(unit), "piece");
    write(seen, Place::kWeightSlot, step.weight_slot);
    auto& slot = weight_slots[step.weight_slot];
    if (slot.first != step.unit || slot.second.size() == static_cast<std::size_t>(shape.num_pieces(unit))) {
      slot = {step.unit, {}};
      arrivals[step.weight_slot].clear();
    }
    slot.second.insert(step.piece);
    arrivals[step.weight_slot].push_back(seen);
    if (step.piece >= shape.cpu_pieces(unit)) {
      read(seen, Place::kWeightStage, step.stage_slot, disk_piece(step));
      if (stage_pieces[{step.stage_slot, disk_piece(step)}] != step.unit)
        complain(seen, "its staged piece is of another unit");
      arrivals[step.weight_slot].push_back(stage_reads[{step.stage_slot, disk_piece(step)}]);
    }
  }
  void read_weights(const Seen& seen) {
    const Step& step = seen.step;
    in_range(seen, step.stage_slot, shape.num_weight_stages, "weight stage");
    write(seen, Place::kWeightStage, step.stage_slot, disk_piece(step));
    stage_pieces[{step.stage_slot, disk_piece(step)}] = step.unit;
    stage_reads[{step.stage_slot, disk_piece(step)}] = seen;
  }
  /// A stage slot holds the disk part alone, so its place counts from the unit's first disk piece.
  std::int64_t disk_piece(const Step& step) const {
    return step.piece - shape.cpu_pieces(shape.units[static_cast<std::size_t>(step.unit)]);
  }
  void use_weights(const Seen& seen, std::int64_t slot, std::int64_t unit) {
    const std::int64_t pieces = shape.num_pieces(shape.units[static_cast<std::size_t>(unit)]);
    if (pieces == 0) return;
    in_range(seen, slot, shape.num_weight_slots, "weight slot");
    read(seen, Place::kWeightSlot, slot);
    const auto& held = weight_slots[slot];
    if (held.first != unit || held.second.size() != static_cast<std::size_t>(pieces)) {
      complain(seen, fmt::format("weight slot {} holds {} of {} pieces of unit {}", slot, held.second.size(),
                                 pieces, held.first));
    }
    if (!shape.placement.prefetch) judge_arrivals(slot);
    arrivals[slot].clear();
  }
  /// The slot's unit is used for the first time: without prefetch, what brought it there began after the gpu
  /// lane's step before.
  void judge_arrivals(std::int64_t slot) {
    for (const Seen& transfer : arrivals[slot]) {
      if (gpu_before.step.seq == 0 || before(gpu_before, transfer)) continue;
      complain(transfer,
               fmt::format("comes ahead of its unit, before the end of gpu step {}", gpu_before.step.seq));
      break;  // one sentence per use is enough
    }
  }

  // ---- KV. `stored` counts the tokens whose K and V are in the seat's part on each tier.

  std::int64_t& stored_len(Tier tier, const Step& step, std::int32_t seat) {
    return stored[tier][static_cast<std::size_t>(step.unit * shape.placement.block_size() + seat)];
  }
  template <class Visit>
  void for_segments(const Seen& seen, Visit visit) {
    const BatchPass& batch = pass->batches[static_cast<std::size_t>(seen.step.gpu_batch)];
    for (std::int32_t i = 0; i < batch.num_segments; ++i) {
      const Segment& segment = pass->segments[static_cast<std::size_t>(batch.first_segment + i)];
      visit(segment, shape.seats.seats[static_cast<std::size_t>(segment.seat)]);
    }
  }
  /// Tokens [begin, end) of a sequence that fall on `tier`.
  static std::int64_t tokens_on(const SeatPages& seat, Tier tier, std::int64_t len) {
    const std::int64_t begin = seat.begin_of(tier) * kKvPageTokens;
    const std::int64_t end = begin + seat.count[tier] * kKvPageTokens;
    return std::clamp(len, begin, end) - begin;
  }
  void need_history(const Seen& seen, const Segment& segment, const SeatPages& seat, Tier tier) {
    const std::int64_t needed = tokens_on(seat, tier, segment.first_kv);
    if (needed == 0) return;
    const std::int64_t have = stored_len(tier, seen.step, segment.seat);
    if (have < needed) {
      complain(seen, fmt::format("seat {} has {} of {} tokens of history on {}", segment.seat, have, needed,
                                 tier_name(tier)));
    }
  }
  void store_rows(const Seen& seen, const Segment& segment, const SeatPages& seat, Tier tier) {
    stored_len(tier, seen.step, segment.seat) = tokens_on(seat, tier, segment.first_kv + segment.num_tokens);
  }
  static bool touches(const SeatPages& seat, const Segment& segment, Tier tier) {
    return tokens_on(seat, tier, segment.first_kv + segment.num_tokens) >
           tokens_on(seat, tier, segment.first_kv);
  }

  // ---- The pass itself, recounted from its segments.

  void judge_pass() {
    const auto bound = [&](std::int64_t value, std::int64_t most, std::size_t b, const char* what) {
      if (value > most) {
        violations.push_back(
            fmt::format("pass {} batch {}: {} {}, planned for {}", pass->number, b, value, what, most));
      }
    };
    for (std::size_t b = 0; b < pass->batches.size(); ++b) {
      std::int64_t tokens = 0, wanted = 0, cpu_rows = 0, window = 0, stage = 0;
      for (std::int32_t i = 0; i < pass->batches[b].num_segments; ++i) {
        const Segment& s = pass->segments[static_cast<std::size_t>(pass->batches[b].first_segment + i)];
        const SeatPages& seat = shape.seats.seats[static_cast<std::size_t>(s.seat)];
        const std::int64_t pages = kv_pages(s.first_kv + s.num_tokens);
        tokens += s.num_tokens;
        wanted += s.num_wanted;
        cpu_rows += s.on_cpu ? s.num_tokens : 0;
        window += s.on_cpu ? 0 : std::max<std::int64_t>(0, pages - seat.count[Tier::kGpu]);
        stage += std::max<std::int64_t>(0, pages - seat.count[Tier::kGpu] - seat.count[Tier::kCpu]);
        bound(pages, seat.total(), b, "pages of a seat");
        if (s.first_kv == 0) forget_seat(s.seat);
      }
      bound(tokens, shape.max_tokens, b, "tokens");
      bound(wanted, shape.max_result_rows, b, "wanted rows");
      bound(cpu_rows, shape.max_cpu_rows, b, "CPU rows");
      bound(window, shape.window_pages, b, "window pages");
      bound(stage, shape.kv_stage_pages, b, "stage pages");
    }
  }

  /// A new sequence takes the seat: what the last one stored is not its history.
  void forget_seat(std::int32_t seat) {
    for (Tier tier : kTiers) {
      for (std::int64_t unit = 0; unit < num_units(shape.spec); ++unit) {
        stored[tier][static_cast<std::size_t>(unit * shape.placement.block_size() + seat)] = 0;
      }
    }
  }

  // ---- One step.

  void judge(const Seen& seen) {
    const Step& step = seen.step;
    const Content own{step.pass, step.unit, step.gpu_batch};
    const Content before_unit{step.pass, step.unit - 1, step.gpu_batch};
    const std::int64_t batch = step.gpu_batch;
    const std::int64_t num_batches = shape.placement.num_gpu_batches;
    const std::int64_t seat_key = step.unit * shape.placement.block_size();
    const auto activation = [&](std::vector<int> RunShape::*where) {
      return static_cast<std::int64_t>((shape.*where)[static_cast<std::size_t>(batch)]);
    };
    switch (step.kind) {
      case StepKind::kReadWeights:
        return read_weights(seen);
      case StepKind::kLoadWeights:
        return load_weights(seen);
      case StepKind::kLoadInputs:
        write(seen, Place::kInputs, step.pass % 2 * num_batches + batch);
        return hold(Place::kInputs, step.pass % 2 * num_batches + batch, {step.pass, 0, batch});
      case StepKind::kEmbed:
        in_range(seen, step.act_slot, shape.num_activation_slots, "activation slot");
        read(seen, Place::kInputs, step.pass % 2 * num_batches + batch);
        expect(seen, Place::kInputs, step.pass % 2 * num_batches + batch, own, "input buffer");
        use_weights(seen, step.input_weight_slot, output_unit(shape.spec));
        write(seen, Place::kActSlot, step.act_slot);
        return hold(Place::kActSlot, step.act_slot, own);
      case StepKind::kStoreActivations:
        read(seen, Place::kActSlot, step.act_slot);
        expect(seen, Place::kActSlot, step.act_slot, own, "activation slot");
        write(seen, Place::kActBuffer, activation(&RunShape::activation_buffer));
        return hold(Place::kActBuffer, activation(&RunShape::activation_buffer), own);
      case StepKind::kWriteActivations:
        read(seen, Place::kActBuffer, activation(&RunShape::activation_buffer));
        expect(seen, Place::kActBuffer, activation(&RunShape::activation_buffer), own, "activation buffer");
        write(seen, Place::kActFile, activation(&RunShape::activation_file));
        return hold(Place::kActFile, activation(&RunShape::activation_file), own);
      case StepKind::kReadActivations:
        read(seen, Place::kActFile, activation(&RunShape::activation_file));
        expect(seen, Place::kActFile, activation(&RunShape::activation_file), before_unit, "activation file");
        write(seen, Place::kActBuffer, activation(&RunShape::activation_buffer));
        return hold(Place::kActBuffer, activation(&RunShape::activation_buffer), before_unit);
      case StepKind::kLoadActivations:
        in_range(seen, step.act_slot, shape.num_activation_slots, "activation slot");
        read(seen, Place::kActBuffer, activation(&RunShape::activation_buffer));
        expect(seen, Place::kActBuffer, activation(&RunShape::activation_buffer), before_unit,
               "activation buffer");
        write(seen, Place::kActSlot, step.act_slot);
        return hold(Place::kActSlot, step.act_slot, before_unit);
      case StepKind::kReadKv:
        in_range(seen, step.kv_stage, shape.num_kv_stages, "KV stage");
        write(seen, Place::kStage, step.kv_stage);
        hold(Place::kStage, step.kv_stage, own);
        return for_segments(seen, [&](const Segment& segment, const SeatPages& seat) {
          if (tokens_on(seat, Tier::kDisk, segment.first_kv) == 0) return;
          need_history(seen, segment, seat, Tier::kDisk);
          read(seen, Place::kDiskKv, seat_key + segment.seat);
        });
      case StepKind::kLoadKv:
        in_range(seen, step.window, shape.num_windows, "KV window");
        write(seen, Place::kWindow, step.window);
        hold(Place::kWindow, step.window, own);
        return for_segments(seen, [&](const Segment& segment, const SeatPages& seat) {
          if (segment.on_cpu) return;
          if (tokens_on(seat, Tier::kCpu, segment.first_kv) > 0) {
            need_history(seen, segment, seat, Tier::kCpu);
            read(seen, Place::kCpuKv, seat_key + segment.seat);
          }
          if (tokens_on(seat, Tier::kDisk, segment.first_kv) > 0) {
            read(seen, Place::kStage, step.kv_stage);
            expect(seen, Place::kStage, step.kv_stage, own, "KV stage");
          }
        });
      case StepKind::kPre:
        use_weights(seen, step.weight_slot, step.unit);
        read(seen, Place::kActSlot, step.act_slot);
        expect(seen, Place::kActSlot, step.act_slot, before_unit, "activation slot");
        in_range(seen, step.set, shape.num_sets, "set");
        write(seen, Place::kSetQkv, step.set);
        hold(Place::kSetQkv, step.set, own);
        return pre_kv(seen, own);
      case StepKind::kSendQkv:
        read(seen, Place::kSetQkv, step.set);
        expect(seen, Place::kSetQkv, step.set, own, "set");
        write(seen, Place::kTwinQkv, step.set);
        return hold(Place::kTwinQkv, step.set, own);
      case StepKind::kAttend:
        return step.lane == LaneKind::kGpu ? attend_gpu(seen, own) : attend_cpu(seen, own);
      case StepKind::kSendAttention:
        read(seen, Place::kTwinAttn, step.set);
        expect(seen, Place::kTwinAttn, step.set, own, "attention twin");
        write(seen, Place::kSetAttnCpu, step.set);
        return hold(Place::kSetAttnCpu, step.set, own);
      case StepKind::kStoreKv:
        return store_kv(seen, own);
      case StepKind::kWriteKv:
        read(seen, Place::kStage, step.kv_stage);
        return for_segments(seen, [&](const Segment& segment, const SeatPages& seat) {
          if (!touches(seat, segment, Tier::kDisk)) return;
          const std::int64_t staged = staged_rows[{step.kv_stage, segment.seat}];
          if (staged != step.pass * 1000 + step.unit)
            complain(seen, fmt::format("seat {} is not in the stage", segment.seat));
          write(seen, Place::kDiskKv, seat_key + segment.seat);
          store_rows(seen, segment, seat, Tier::kDisk);
        });
      case StepKind::kPost: {
        use_weights(seen, step.weight_slot, step.unit);
        const BatchPass& rows = pass->batches[static_cast<std::size_t>(batch)];
        if (rows.num_gpu_segments > 0) {
          read(seen, Place::kSetAttnGpu, step.set);
          expect(seen, Place::kSetAttnGpu, step.set, own, "attention of GPU rows");
        }
        if (rows.num_cpu_rows > 0) {
          read(seen, Place::kSetAttnCpu, step.set);
          expect(seen, Place::kSetAttnCpu, step.set, own, "attention of CPU rows");
        }
        expect(seen, Place::kActSlot, step.act_slot, before_unit, "activation slot");
        write(seen, Place::kActSlot, step.act_slot);
        return hold(Place::kActSlot, step.act_slot, own);
      }
      case StepKind::kHead:
        use_weights(seen, step.weight_slot, step.unit);
        read(seen, Place::kInputs, step.pass % 2 * num_batches + batch);
        expect(seen, Place::kInputs, step.pass % 2 * num_batches + batch, {step.pass, 0, batch},
               "input buffer");
        read(seen, Place::kActSlot, step.act_slot);
        expect(seen, Place::kActSlot, step.act_slot, before_unit, "activation slot");
        write(seen, Place::kResults, batch);
        return hold(Place::kResults, batch, own);
      case StepKind::kFetchResults:
        read(seen, Place::kResults, batch);
        return expect(seen, Place::kResults, batch, own, "results");
    }
  }

  void pre_kv(const Seen& seen, const Content& own) {
    bool window = false;
    for_segments(seen, [&](const Segment& segment, const SeatPages& seat) {
      if (segment.on_cpu) return;
      if (window_pages_of(seat, segment) > 0) window = true;
      if (touches(seat, segment, Tier::kGpu)) store_rows(seen, segment, seat, Tier::kGpu);
    });
    if (!window) return;
    in_range(seen, seen.step.window, shape.num_windows, "KV window");
    const BatchPass& batch = pass->batches[static_cast<std::size_t>(seen.step.gpu_batch)];
    if (batch.load_kv_bytes > 0) expect(seen, Place::kWindow, seen.step.window, own, "KV window");
    write(seen, Place::kWindow, seen.step.window);
    hold(Place::kWindow, seen.step.window, own);
  }

  void attend_gpu(const Seen& seen, const Content& own) {
    read(seen, Place::kSetQkv, seen.step.set);
    expect(seen, Place::kSetQkv, seen.step.set, own, "set");
    write(seen, Place::kSetAttnGpu, seen.step.set);
    hold(Place::kSetAttnGpu, seen.step.set, own);
    for_segments(seen, [&](const Segment& segment, const SeatPages& seat) {
      if (segment.on_cpu) return;
      need_history(seen, segment, seat, Tier::kGpu);
      if (window_pages_of(seat, segment) == 0) return;
      read(seen, Place::kWindow, seen.step.window);
      expect(seen, Place::kWindow, seen.step.window, own, "KV window");
    });
  }

  void attend_cpu(const Seen& seen, const Content& own) {
    const Step& step = seen.step;
    read(seen, Place::kTwinQkv, step.set);
    expect(seen, Place::kTwinQkv, step.set, own, "set twin");
    write(seen, Place::kTwinAttn, step.set);
    hold(Place::kTwinAttn, step.set, own);
    for_segments(seen, [&](const Segment& segment, const SeatPages& seat) {
      if (!segment.on_cpu) return;
      if (segment.decode == false || seat.count[Tier::kGpu] > 0)
        complain(seen, "attends rows that belong to the GPU");
      need_history(seen, segment, seat, Tier::kCpu);
      write(seen, Place::kCpuKv, step.unit * shape.placement.block_size() + segment.seat);
      if (touches(seat, segment, Tier::kCpu)) store_rows(seen, segment, seat, Tier::kCpu);
      if (tokens_on(seat, Tier::kDisk, segment.first_kv) > 0) {
        expect(seen, Place::kStage, step.kv_stage, own, "KV stage");
      }
      if (stage_pages_of(seat, segment) > 0) {
        in_range(seen, step.kv_stage, shape.num_kv_stages, "KV stage");
        write(seen, Place::kStage, step.kv_stage);
        staged_rows[{step.kv_stage, segment.seat}] = step.pass * 1000 + step.unit;
      }
    });
  }

  void store_kv(const Seen& seen, const Content& own) {
    const Step& step = seen.step;
    read(seen, Place::kWindow, step.window);
    expect(seen, Place::kWindow, step.window, own, "KV window");
    for_segments(seen, [&](const Segment& segment, const SeatPages& seat) {
      if (segment.on_cpu) return;
      if (touches(seat, segment, Tier::kCpu)) {
        write(seen, Place::kCpuKv, step.unit * shape.placement.block_size() + segment.seat);
        store_rows(seen, segment, seat, Tier::kCpu);
      }
      if (touches(seat, segment, Tier::kDisk)) {
        in_range(seen, step.kv_stage, shape.num_kv_stages, "KV stage");
        write(seen, Place::kStage, step.kv_stage);
        staged_rows[{step.kv_stage, segment.seat}] = step.pass * 1000 + step.unit;
      }
    });
  }

  const RunShape& shape;
  const Pass* pass = nullptr;
  std::map<std::int64_t, std::pair<std::int64_t, std::set<std::int64_t>>>
      weight_slots;                                                            // slot -> unit, pieces
  std::map<std::pair<std::int64_t, std::int64_t>, std::int64_t> stage_pieces;  // stage, piece -> unit
  std::map<std::pair<std::int64_t, std::int64_t>, Seen> stage_reads;           // the same -> its read
  std::map<std::int64_t, std::vector<Seen>> arrivals;  // slot -> transfers of what it holds, until it is used
  Seen gpu_before;                                     // the gpu lane's last step
  std::map<std::pair<std::int64_t, std::int64_t>, std::int64_t> staged_rows;  // stage, seat -> pass and unit
  PerTier<std::vector<std::int64_t>> stored;                                  // [unit * block + seat]
};

ScheduleChecker::ScheduleChecker(const RunShape& shape) : impl_(std::make_unique<Impl>(shape)) {}
ScheduleChecker::~ScheduleChecker() = default;

void ScheduleChecker::add(const Schedule& schedule, const Pass* pass, const std::vector<StepTime>* times) {
  impl_->pass = pass;
  impl_->timed = times != nullptr;
  if (pass != nullptr) impl_->judge_pass();
  for (std::size_t i = 0; i < schedule.steps.size(); ++i) {
    Seen seen{.step = schedule.steps[i], .clock = {}, .time = {}};
    if (times != nullptr) seen.time = (*times)[i];
    impl_->set_clock(seen);
    impl_->judge(seen);
    if (seen.step.lane == LaneKind::kGpu) impl_->gpu_before = seen;
  }
}

const std::vector<std::string>& ScheduleChecker::violations() const { return impl_->violations; }

}  // namespace sluice::policy
