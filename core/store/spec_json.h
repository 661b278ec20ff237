// The model spec as it stands in a manifest. FORMAT.md, "spec". Thread-safe.
#pragma once

#include <nlohmann/json.hpp>

#include "core/model/spec.h"
#include "core/store/json_field.h"

namespace sluice::detail {

nlohmann::ordered_json spec_to_json(const ModelSpec& spec);

/// Reads and bounds every field, so that sizes computed from the spec cannot overflow. Throws Error{kCorrupt}
/// naming the field.
ModelSpec spec_from_json(const JsonField& field);

}  // namespace sluice::detail
