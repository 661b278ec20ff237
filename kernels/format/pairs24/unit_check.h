// Checks of a stored unit of pairs24. Pure functions, thread-safe.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "core/dtype.h"
#include "kernels/format/pairs24/unit.h"

namespace sluice::kernels {

/// Why readers may fault on a unit of a matrix that has `rows` x `cols` elements of `dtype` in it, or may
/// disagree about it; empty if they cannot.
std::string why_damaged(std::span<const std::byte> unit, int rows, int cols, DType dtype);

}  // namespace sluice::kernels
