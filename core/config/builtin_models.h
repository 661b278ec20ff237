// The texts of configs/models/*.yaml, written into a source file by CMake. Immutable, thread-safe.
#pragma once

#include <span>
#include <string_view>

namespace sluice::detail {

struct EmbeddedText {
  std::string_view name;  ///< file name without extension
  std::string_view text;
};

std::span<const EmbeddedText> builtin_model_texts();
/// configs/hardware/*.yaml, sorted by name.
std::span<const EmbeddedText> builtin_hardware_texts();
/// configs/sweeps/*.yaml, sorted by name.
std::span<const EmbeddedText> builtin_sweep_texts();

}  // namespace sluice::detail
