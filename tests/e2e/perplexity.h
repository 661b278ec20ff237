// Perplexity on the held-out books, by the method of tests/golden/SOURCE.md.
#pragma once

#include <filesystem>

#include "kernels/format/format_rules.h"

namespace sluice::testing {

/// Of a checkpoint with a tokenizer, its matrices in `formats`: exp of the mean negative log-prob of 64897
/// tokens, in 127 windows of 512.
double books_perplexity(const std::filesystem::path& checkpoint, const kernels::FormatConfig& formats = {});

}  // namespace sluice::testing
