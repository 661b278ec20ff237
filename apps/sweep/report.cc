#include "apps/sweep/report.h"

#include <array>
#include <utility>

#include <fmt/format.h>

#include "apps/sweep/page_parts.h"
#include "core/error.h"
#include "core/store/posix_file.h"

namespace sluice::apps {
namespace {

std::string joined(detail::TextPieces pieces) {
  std::string text;
  for (const std::string_view piece : pieces) text += piece;
  return text;
}

/// JSON that can stand in a script element: `</script>` and `<!--` would end or change it.
std::string script_json(const nlohmann::ordered_json& value) {
  std::string text = value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  std::string escaped;
  escaped.reserve(text.size());
  for (const char c : text) {
    if (c == '<')
      escaped += "\\u003c";
    else
      escaped += c;
  }
  return escaped;
}

std::string html_text(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '&':
        escaped += "&amp;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

}  // namespace

std::string report_html(const SweepResults& results) {
  const nlohmann::ordered_json data = {{"sweep", results.header}, {"points", results.lines}};
  const std::array<std::pair<std::string_view, std::string>, 5> parts = {
      {{"<!--title-->", html_text(results.header.value("title", "sluice sweep"))},
       {"/*style*/", joined(detail::page_style())},
       {"/*data*/", script_json(data)},
       {"/*chart library*/", joined(detail::chart_library())},
       {"/*script*/", joined(detail::page_script())}}};
  // In one pass over the template, so that nothing in a title or in the data is taken for a mark.
  const std::string page = joined(detail::page_template());
  std::string html;
  for (std::size_t at = 0; at < page.size();) {
    std::size_t first = std::string::npos;
    const std::pair<std::string_view, std::string>* next = nullptr;
    for (const auto& part : parts) {
      const std::size_t found = page.find(part.first, at);
      if (found >= first) continue;
      first = found;
      next = &part;
    }
    html.append(page, at, first - at);
    if (next == nullptr) break;
    html += next->second;
    at = first + next->first.size();
  }
  return html;
}

void write_report(const std::string& path, const SweepResults& results) {
  sluice::detail::replace_text_file(path, report_html(results));
}

}  // namespace sluice::apps
