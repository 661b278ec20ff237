// The SIMD targets that the kernels are compiled for. To be included before any Highway header.
//
// SSSE3 adds nothing that a machine of today lacks beside SSE4, and the scalable vectors (SVE, RVV) cannot be
// kept in arrays, which register tiles are made of; each target costs compile time and code size.
// Highway asks for a macro here; it is one of the two places with #if outside the build configuration.
#pragma once

#include "hwy/detect_compiler_arch.h"

#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#endif
