// When a device's steps ended, on the host's clock. A device tells how long after one event another came: as
// a float of milliseconds, which is a quarter of a millisecond coarse after an hour, and by a clock of its
// own, which drifts from the host's by some ten microseconds a second. So ends are counted from an end seen
// shortly before, in doubles, and what lies between the clocks is learnt anew with every end. Not
// thread-safe.
#pragma once

#include <algorithm>
#include <cstdint>

namespace sluice::kernels {

class StepClock {
 public:
  /// `origin_sec` is the origin's time on the host's clock, or a little later. The event of a step's end
  /// stands until `events` further steps have been awaited.
  StepClock(double origin_sec, std::int64_t events) : events_(events), offset_sec_(origin_sec) {}

  /// The step whose end the next one awaited is counted from; 0 is the origin.
  std::int64_t reference(std::int64_t seq) const {
    return seq >= last_seq_ && seq - last_seq_ < events_ ? last_seq_ : 0;
  }

  /// Seconds of the host's clock at which step `seq` ended, which was `since_reference_sec` of the device's
  /// after its reference, and which the host saw at `seen_sec`, some time later.
  double end_of(std::int64_t seq, double since_reference_sec, double seen_sec) {
    const bool goes_on = reference(seq) != 0;
    const double device_sec = (goes_on ? device_sec_ : 0) + since_reference_sec;
    // Seeing an end bounds the offset from above. From below only a device that is slower than the host's
    // clock moves it, at most this much.
    constexpr double kMostDrift = 1e-4;
    const double passed_sec = std::max(0.0, device_sec - device_sec_);
    offset_sec_ = std::min(offset_sec_ + kMostDrift * passed_sec, seen_sec - device_sec);
    const double end_sec = device_sec + offset_sec_;
    end_sec_ = goes_on ? std::max(end_sec_, end_sec) : end_sec;
    last_seq_ = seq;
    device_sec_ = device_sec;
    return end_sec_;
  }

 private:
  const std::int64_t events_;
  double offset_sec_;      // the host's clock less the device's, which starts at the origin
  double device_sec_ = 0;  // of the step awaited last
  double end_sec_ = 0;
  std::int64_t last_seq_ = 0;
};

}  // namespace sluice::kernels
