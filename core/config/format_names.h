// Stored formats in configuration files, by the names of core/format.h and core/kv_page.h. Pure, thread-safe.
#pragma once

#include <array>
#include <vector>

#include "core/config/fields.h"
#include "core/format.h"
#include "core/kv_page.h"

namespace sluice {

inline std::vector<EnumName<Encoding>> enum_names(Encoding) {
  std::vector<EnumName<Encoding>> names;
  for (const Encoding encoding : all_encodings()) names.push_back({encoding, encoding_name(encoding)});
  return names;
}

constexpr auto enum_names(KvFormat) {
  return std::to_array<EnumName<KvFormat>>(
      {{KvFormat::kF16, kv_format_name(KvFormat::kF16)}, {KvFormat::kF32, kv_format_name(KvFormat::kF32)}});
}

}  // namespace sluice
