// Who touched which place of memory, in what order, and whose data it holds: what ScheduleChecker judges
// steps by. It knows steps only by their lanes, numbers and waits, not by their meaning. Single-threaded.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "policy/check_schedule.h"
#include "policy/step.h"

namespace sluice::policy::detail {

using Clock = std::array<std::int64_t, kNumLanes>;

/// A step that has been fed, with what orders it.
struct Seen {
  Step step;
  Clock clock{};  // steps of each lane that are surely finished when this one starts
  StepTime time;
};

/// A piece of memory: a kind of place with up to three numbers.
enum class Place : std::uint8_t {
  kWeightSlot,
  kWeightStage,
  kInputs,
  kActSlot,
  kActBuffer,
  kActFile,
  kWindow,
  kStage,
  kCpuKv,
  kDiskKv,
  kSetQkv,
  kSetAttnGpu,
  kSetAttnCpu,
  kTwinQkv,
  kTwinAttn,
  kResults,
};
using Key = std::tuple<Place, std::int64_t, std::int64_t>;

/// What a place holds: for slots, whose data it is.
struct Content {
  std::int64_t pass = -2, unit = -2, batch = -2;
  friend bool operator==(const Content&, const Content&) = default;
};

/// Steps are fed in order: `set_clock`, then what the step touches.
class PlaceLog {
 public:
  /// Whether `a` has surely ended when `b` starts.
  bool before(const Seen& a, const Seen& b) const;
  void complain(const Seen& seen, const std::string& problem);
  /// Derives from the waits what is finished when the step starts.
  void set_clock(Seen& seen);

  /// Complains unless the step is ordered after those that it conflicts with.
  void read(const Seen& seen, Place place, std::int64_t a, std::int64_t b = 0) {
    touch(seen, {place, a, b}, false);
  }
  void write(const Seen& seen, Place place, std::int64_t a, std::int64_t b = 0) {
    touch(seen, {place, a, b}, true);
  }
  /// Complains unless the place holds `wanted`; `what` names it.
  void expect(const Seen& seen, Place place, std::int64_t index, const Content& wanted, const char* what);
  void hold(Place place, std::int64_t index, const Content& content);
  void in_range(const Seen& seen, std::int64_t index, std::int64_t count, const char* what);

  bool timed = false;  ///< steps carry times, which order them
  std::vector<std::string> violations;

 private:
  /// Each place remembers its accesses since, and including, the last write.
  void touch(const Seen& seen, Key key, bool write);

  std::array<std::vector<Clock>, kNumLanes> lanes_;
  std::map<Key, std::vector<std::pair<Seen, bool>>> places_;
  std::map<Key, Content> contents_;
};

}  // namespace sluice::policy::detail
