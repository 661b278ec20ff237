// The rates of a CUDA device and the machine around it that bounds of whole runs are computed from.
#pragma once

#include <vector>

#include "kernels/device/device.h"
#include "policy/work_floor.h"

namespace sluice::apps {

/// A value per round. Link and host memory are measured while both work.
struct DeviceRates {
  std::vector<double> h2d_bytes_per_sec;        ///< pinned, in pieces of 32 MiB
  std::vector<double> host_read_bytes_per_sec;  ///< by `threads`, as CPU attention reads KV
  std::vector<double> flops;                    ///< of products of 8192 cubed, fp16, random operands
  policy::MeasuredRates medians() const;
};

/// Takes 3 GiB of host memory and 2 GiB of the device's for the while. Throws Error{kOutOfMemory, kDevice}.
DeviceRates measure_device_rates(kernels::Device& device, int threads, int rounds);

}  // namespace sluice::apps
