// What the machine can do at best, measured with the same vectors and threads as the kernels: the
// denominators of every "share of the machine's rate". Thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/device/cpu/thread_pool.h"

namespace sluice::kernels {

/// Reads every byte of `memory` (a multiple of 4 KiB) once, with the widest loads, on all threads; returns
/// the exclusive or of its words, so that nothing can be left out.
std::uint64_t read_all(std::span<const std::byte> memory, ThreadPool& pool);

/// Runs independent fp32 multiply-adds in registers on all threads and returns how many floating-point
/// operations that were (a multiply-add is two). `rounds` of about 10 us each per thread.
double run_multiply_adds(std::int64_t rounds, ThreadPool& pool);

}  // namespace sluice::kernels
