// The known name that somebody most likely meant. Pure, thread-safe.
#pragma once

#include <span>
#include <string_view>

namespace sluice::apps {

/// The entry of `known` with the least edit distance to `name` (the first of several); empty if none is
/// known.
std::string_view nearest_name(std::string_view name, std::span<const std::string_view> known);

}  // namespace sluice::apps
