// What a test can hang into a run. Production runs have none of it.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "kernels/device/cpu/thread_starter.h"
#include "kernels/device/device.h"
#include "offload/executor/executor.h"
#include "offload/executor/model_runner.h"
#include "offload/io/block_io.h"
#include "policy/hazards.h"
#include "policy/pass.h"
#include "policy/step.h"

namespace sluice::offload {

struct RunHooks {
  Poison poison = Poison::kOff;
  /// Called on the lane's thread before each step: delays, cancellations.
  StepHook before_step;
  /// Called on the run thread once every step of a schedule is finished; `pass` is null for the prologue.
  std::function<void(const policy::Schedule&, const policy::Pass*, const std::vector<policy::StepTime>&)>
      on_finished;
  /// Called once with the shape of the run, before its first pass.
  std::function<void(const policy::RunShape&)> on_shape;
  /// Takes away one kind of wait, for mutation tests.
  std::function<void(policy::HazardTracker&)> mutate;
  /// Stands between the engine and its device, or in the device's place.
  std::function<std::unique_ptr<kernels::Device>(std::unique_ptr<kernels::Device>)> wrap_device;
  /// Makes the disks of the lanes in place of make_block_io.
  std::function<std::unique_ptr<BlockIo>()> make_disk;
  /// Makes the threads of the lanes.
  kernels::ThreadMaker make_thread;
};

}  // namespace sluice::offload
