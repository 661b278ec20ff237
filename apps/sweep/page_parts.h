// The parts of the report page, written into a source file by CMake: apps/sweep/report*.{html,css,js} and the
// minified Chart.js of the system. In pieces, as compilers bound the length of a literal. Immutable,
// thread-safe.
#pragma once

#include <span>
#include <string_view>

namespace sluice::apps::detail {

using TextPieces = std::span<const std::string_view>;

TextPieces page_template();
TextPieces page_style();
TextPieces page_script();
TextPieces chart_library();

}  // namespace sluice::apps::detail
