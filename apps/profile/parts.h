// The parts of `sluice profile`: each fills the figures that it measures. Throw what the operators and the
// file system throw.
#pragma once

#include <span>

#include "apps/profile/rig.h"
#include "policy/hardware.h"

namespace sluice::apps {

/// A part, and what it is called.
struct ProfilePart {
  const char* name;
  void (*measure)(Rig&, policy::HardwareProfile&);
};
/// All of them, in the order in which a profile is measured.
std::span<const ProfilePart> profile_parts();

/// Copies by piece, alone and in both directions at once.
void measure_link(Rig& rig, policy::HardwareProfile& profile);
/// Products by format and rows, copies, attention on the gpu lane.
void measure_gpu(Rig& rig, policy::HardwareProfile& profile);
/// What its steps cost beside their work, alone and while copies take the link.
void measure_gpu_overheads(Rig& rig, policy::HardwareProfile& profile);
/// Reads, copies and attention on the CPU; on a CPU device what its lanes leave each other.
void measure_host(Rig& rig, policy::HardwareProfile& profile);
/// A part of it: attention by format and threads, and what attention and the links leave each other.
void measure_attention_on_host(Rig& rig, policy::HardwareProfile& profile);
/// O_DIRECT reads and writes of a file of its own, by queue depth and piece.
void measure_disk(const Rig& rig, policy::HardwareProfile& profile);
/// What can be reserved now.
void measure_memory(const Rig& rig, policy::HardwareProfile& profile);

}  // namespace sluice::apps
