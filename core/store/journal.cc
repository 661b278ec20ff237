#include "core/store/journal.h"

#include <charconv>
#include <fcntl.h>
#include <optional>
#include <string_view>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/units.h"

namespace sluice::detail {
namespace {

std::string header_line(const std::string& identity) {
  return nlohmann::json{{"conversion", identity}}.dump(-1, ' ', true,
                                                       nlohmann::json::error_handler_t::replace) +
         "\n";
}
std::string tensor_line(std::int64_t index, const FinishedTensor& tensor) {
  return fmt::format("{{\"tensor\":{},\"bytes\":{},\"checksum\":\"{:016x}\",\"zeros\":{},\"error\":{}}}\n",
                     index, tensor.bytes, tensor.checksum, tensor.stats.zeros, tensor.stats.error);
}
std::string unit_line(std::int64_t unit) { return fmt::format("{{\"unit\":{}}}\n", unit); }

/// Cuts the first line off `text`; empty if no whole line is left.
std::optional<std::string_view> take_line(std::string_view& text) {
  const std::size_t end = text.find('\n');
  if (end == std::string_view::npos) return std::nullopt;
  const std::string_view line = text.substr(0, end + 1);
  text.remove_prefix(end + 1);
  return line;
}

}  // namespace

JournalState Journal::read(const std::filesystem::path& file, const std::string& identity) {
  JournalState state;
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(file, ignored)) return state;
  const std::string text = read_text_file(file, 256_MiB);
  std::string_view rest = text;
  if (take_line(rest) != header_line(identity)) return state;
  while (const auto line = take_line(rest)) {
    const auto record = nlohmann::json::parse(*line, nullptr, /*allow_exceptions=*/false);
    const auto index = static_cast<std::int64_t>(state.tensors.size());
    FinishedTensor tensor;
    const auto number = [&record](const char* key) {
      const bool is_there = record.is_object() && record.contains(key) && record[key].is_number();
      return is_there ? record[key] : nlohmann::json(0);
    };
    tensor.bytes = number("bytes").get<std::int64_t>();
    tensor.stats = {number("zeros").get<std::int64_t>(), number("error").get<double>()};
    if (record.is_object() && record.contains("checksum") && record["checksum"].is_string()) {
      const auto& digits = record["checksum"].get_ref<const std::string&>();
      std::from_chars(digits.data(), digits.data() + digits.size(), tensor.checksum, 16);
    }
    // A line counts only if it is exactly what we would have written next.
    if (*line == tensor_line(index, tensor)) {
      state.tensors.push_back(tensor);
    } else if (*line == unit_line(state.synced_units)) {
      ++state.synced_units;
    } else {
      break;
    }
  }
  return state;
}

Journal::Journal(const std::filesystem::path& file, const std::string& identity, const JournalState& state)
    : file_(file),
      num_tensors_(static_cast<std::int64_t>(state.tensors.size())),
      num_units_(state.synced_units) {
  std::string text = header_line(identity);
  for (std::size_t i = 0; i < state.tensors.size(); ++i) {
    text += tensor_line(static_cast<std::int64_t>(i), state.tensors[i]);
  }
  for (std::int64_t unit = 0; unit < state.synced_units; ++unit) text += unit_line(unit);
  replace_text_file(file, text);
  fd_ = open_file(file, O_WRONLY);
  size_ = static_cast<std::int64_t>(text.size());
}

void Journal::tensor_finished(const FinishedTensor& tensor) { append(tensor_line(num_tensors_++, tensor)); }

void Journal::unit_synced() {
  append(unit_line(num_units_++));
  sync_file(fd_, file_);
}

void Journal::append(const std::string& line) {
  write_at(fd_, file_, size_, std::as_bytes(std::span(line)));
  size_ += static_cast<std::int64_t>(line.size());
}

}  // namespace sluice::detail
