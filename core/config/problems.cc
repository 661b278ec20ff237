#include "core/config/problems.h"

#include <algorithm>

#include "core/checkpoint/printable.h"
#include "core/error.h"

namespace sluice {

void ConfigProblems::set_source(std::string source) {
  source_ = std::move(source);
  ++source_number_;
}

void ConfigProblems::add(int line, std::string_view key, std::string_view problem, std::string_view fix) {
  std::string text = line > 0 ? fmt::format("{}:{}: ", source_, line) : source_ + ": ";
  if (!key.empty()) text += fmt::format("{}: ", printable(key));
  problems_.push_back({source_number_, line, fmt::format("{}{}; {}", text, problem, fix)});
}

void ConfigProblems::add_message(std::string message) {
  problems_.push_back({source_number_, 0, std::move(message)});
}

void ConfigProblems::throw_if_any() const {
  if (problems_.empty()) return;
  std::vector<Problem> sorted = problems_;
  std::stable_sort(sorted.begin(), sorted.end(), [](const Problem& a, const Problem& b) {
    return a.source_number != b.source_number ? a.source_number < b.source_number : a.line < b.line;
  });
  std::string text;
  for (const Problem& problem : sorted) text += (text.empty() ? "" : "\n") + problem.text;
  throw Error(Code::kInvalidArgument, text);
}

}  // namespace sluice
