#include "core/checkpoint/printable.h"

#include <fmt/format.h>

namespace sluice {

std::string printable(std::string_view text, std::size_t max_chars) {
  std::string out;
  for (const char c : text.substr(0, max_chars)) {
    if (c >= ' ' && c <= '~' && c != '\'' && c != '\\') {
      out.push_back(c);
    } else {
      out += fmt::format("\\x{:02X}", static_cast<unsigned char>(c));
    }
  }
  if (text.size() > max_chars) out += "...";
  return out;
}

std::string what_without_fix(const Error& e) {
  std::string what = e.what();
  const std::string ending = fmt::format("; {}", e.fix());
  if (!e.fix().empty() && what.ends_with(ending)) what.resize(what.size() - ending.size());
  return what;
}

}  // namespace sluice
