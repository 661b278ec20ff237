#include "core/units.h"

#include <array>
#include <charconv>
#include <cmath>
#include <utility>

#include "core/error.h"

namespace sluice {

std::string format_bytes(std::int64_t bytes) {
  constexpr std::array<std::pair<std::int64_t, const char*>, 4> kUnits{
      {{1LL << 40, "TiB"}, {1LL << 30, "GiB"}, {1LL << 20, "MiB"}, {1LL << 10, "KiB"}}};
  for (const auto& [size, name] : kUnits) {
    if (bytes >= size)
      return fmt::format("{:.2f} {}", static_cast<double>(bytes) / static_cast<double>(size), name);
  }
  return fmt::format("{} B", bytes);
}

std::int64_t parse_bytes(std::string_view text, std::string_view what) {
  const auto bad = [&](std::string_view why) {
    return Error(Code::kInvalidArgument, fmt::format("{}: '{}' {}", what, text, why),
                 "write bytes, or a number with KiB, MiB, GiB or TiB, for example 16GiB");
  };
  double number = 0;
  const auto [rest, ec] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (ec != std::errc{} || !(number >= 0)) throw bad("is not a size");
  std::string_view unit(rest, static_cast<std::size_t>(text.data() + text.size() - rest));
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  constexpr std::array<std::pair<std::string_view, double>, 14> kUnits{{{"", 1.0},
                                                                        {"B", 1.0},
                                                                        {"KiB", 0x1p10},
                                                                        {"MiB", 0x1p20},
                                                                        {"GiB", 0x1p30},
                                                                        {"TiB", 0x1p40},
                                                                        {"K", 0x1p10},
                                                                        {"M", 0x1p20},
                                                                        {"G", 0x1p30},
                                                                        {"T", 0x1p40},
                                                                        {"KB", 1e3},
                                                                        {"MB", 1e6},
                                                                        {"GB", 1e9},
                                                                        {"TB", 1e12}}};
  for (const auto& [name, size] : kUnits) {
    if (unit != name) continue;
    const double bytes = number * size;
    if (bytes > 0x1p62) throw bad("is too large");
    return static_cast<std::int64_t>(std::floor(bytes));
  }
  throw bad("has an unknown unit");
}

}  // namespace sluice
