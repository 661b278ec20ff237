// The names of stored formats in configuration files. Pure, thread-safe.
#pragma once

#include <array>

#include "core/config/fields.h"
#include "core/format.h"
#include "core/kv_page.h"

namespace sluice {

constexpr auto enum_names(Encoding) {
  return std::to_array<EnumName<Encoding>>({{Encoding::kDense, "dense"},
                                            {Encoding::kTiledCsl, "tiled_csl"},
                                            {Encoding::kBankCsl, "bank_csl"},
                                            {Encoding::kBitmap, "bitmap"},
                                            {Encoding::kInt8, "int8"},
                                            {Encoding::kInt8G128, "int8_g128"},
                                            {Encoding::kInt4G64, "int4_g64"},
                                            {Encoding::kInt4G128, "int4_g128"},
                                            {Encoding::kInt4SymG64, "int4_sym_g64"},
                                            {Encoding::kInt4SymG128, "int4_sym_g128"},
                                            {Encoding::kBitmapInt8, "bitmap_int8"},
                                            {Encoding::kBitmapInt4, "bitmap_int4"}});
}

constexpr auto enum_names(KvFormat) {
  return std::to_array<EnumName<KvFormat>>({{KvFormat::kF16, "fp16"}, {KvFormat::kF32, "fp32"}});
}

}  // namespace sluice
