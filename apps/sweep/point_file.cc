#include "apps/sweep/point_file.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "apps/sweep/point_line.h"
#include "core/error.h"
#include "core/store/checksum.h"
#include "core/store/posix_file.h"
#include "core/units.h"

namespace sluice::apps {
namespace {

using nlohmann::ordered_json;

constexpr std::int64_t kMostFileBytes = 1_GiB;

std::string text_of(const ordered_json& line) {
  return line.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

/// By number, the last line of each point.
std::vector<ordered_json> last_of_each(const std::vector<ordered_json>& lines) {
  std::map<std::int64_t, ordered_json> by_number;
  for (const ordered_json& line : lines) by_number[line.at("number").get<std::int64_t>()] = line;
  std::vector<ordered_json> last;
  last.reserve(by_number.size());
  for (auto& [number, line] : by_number) last.push_back(std::move(line));
  return last;
}

bool is_kind(const ordered_json& line, std::string_view kind) {
  const auto found = line.find("kind");
  return found != line.end() && *found == kind;
}

bool is_point(const ordered_json& line) {
  const auto has = [&](const char* key, auto is) { return line.contains(key) && is(line.at(key)); };
  const auto text = [](const ordered_json& value) { return value.is_string(); };
  return is_kind(line, "point") && has("id", text) && has("status", text) &&
         has("number", [](const ordered_json& value) { return value.is_number_integer(); }) &&
         has("flags", [](const ordered_json& value) { return value.is_object(); });
}

/// "mode was run and is simulate, ..."; empty if the file is of the same sweep.
std::string difference(const SweepHeader& before, const SweepHeader& now) {
  std::string text;
  for (const char* key : {"mode", "hardware", "points", "points_hash"}) {
    const ordered_json was = before.value(key, ordered_json());
    // Without the order of keys, which a file may have changed.
    if (nlohmann::json(was) == nlohmann::json(now.at(key))) continue;
    text +=
        fmt::format("{}{} was {} and is {}", text.empty() ? "" : ", ", key, was.dump(), now.at(key).dump());
  }
  return text;
}

}  // namespace

std::string points_hash(std::span<const SweepPoint> points) {
  std::string ids;
  for (const SweepPoint& point : points) ids += point.id + "\n";
  return fmt::format("{:016x}", store_checksum(std::as_bytes(std::span(ids))));
}

SweepResults read_sweep_results(const std::string& path) {
  const std::string text = detail::read_text_file(path, kMostFileBytes);
  SweepResults results;
  std::int64_t number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = text.find('\n', begin);
    if (end == std::string::npos) break;  // torn: the run was killed while it wrote
    ++number;
    ordered_json line = ordered_json::parse(text.begin() + static_cast<std::ptrdiff_t>(begin),
                                            text.begin() + static_cast<std::ptrdiff_t>(end), nullptr,
                                            /*allow_exceptions=*/false);
    const bool is_header = number == 1;
    const bool is_known = line.is_object() && (is_header ? is_kind(line, "sweep") : is_point(line));
    SLUICE_CHECK(
        is_known, Code::kCorrupt,
        fmt::format("{}:{}: {}", path, number,
                    is_header ? "is not the first line of a sweep's output" : "is no result of a point"),
        "give the --output of sluice sweep, or remove the file");
    if (is_header)
      results.header = std::move(line);
    else
      results.lines.push_back(std::move(line));
    begin = end + 1;
    results.keep_bytes = static_cast<std::int64_t>(begin);
  }
  results.lines = last_of_each(results.lines);
  return results;
}

PointFile::PointFile(const PointFileOptions& options, SweepHeader header, std::span<const SweepPoint> points)
    : options_(options), header_(std::move(header)) {
  if (options.path == "-") {
    SLUICE_CHECK(!options.resume, Code::kInvalidArgument, "--resume cannot continue standard output",
                 "give --output FILE");
    return;
  }
  if (!has_content(options.path)) return;
  SweepResults found = read_sweep_results(options.path);
  if (found.header.is_null()) {  // killed before its first line was whole, if it is a sweep's
    constexpr std::string_view kStart = R"({"kind":"sweep",)";
    std::ifstream in(options.path, std::ios::binary);
    std::string start(kStart.size(), '\0');
    in.read(start.data(), std::ssize(start));
    start.resize(static_cast<std::size_t>(in.gcount()));
    SLUICE_CHECK(kStart.starts_with(start), Code::kCorrupt,
                 fmt::format("{} is not the output of a sweep", options.path),
                 "choose another --output, or remove the file");
    return;
  }
  const std::string changed = difference(found.header, header_);
  if (!options.resume) {
    const std::int64_t total = found.header.value("points", std::int64_t{0});
    const std::int64_t ended = std::count_if(found.lines.begin(), found.lines.end(),
                                             [](const ordered_json& line) { return !shall_run_again(line); });
    SLUICE_CHECK(
        ended >= total, Code::kInvalidArgument,
        fmt::format("{} holds {} of {} points of an unfinished sweep", options.path, ended, total),
        changed.empty() ? "continue it with --resume, or remove the file" : "choose another --output");
    SLUICE_CHECK(changed.empty(), Code::kInvalidArgument,
                 fmt::format("{} holds the results of another sweep: {}", options.path, changed),
                 "choose another --output, or remove the file");
    return;  // a finished one is written anew
  }
  SLUICE_CHECK(changed.empty(), Code::kInvalidArgument,
               fmt::format("--resume: {} is of another sweep: {}", options.path, changed),
               "resume with the files and options of the interrupted sweep, or choose another --output");
  std::set<std::string> ids;
  for (const SweepPoint& point : points) ids.insert(point.id);
  before_ = std::move(found);
  for (const ordered_json& line : before_.lines) {
    const auto id = line.at("id").get<std::string>();
    attempts_[id] = attempt_of(line);
    if (!ids.contains(id) || line.at("status") == status_name(PointStatus::kFailed)) continue;
    if (!shall_run_again(line)) done_.insert(id);
  }
}

void PointFile::open() {
  const MutexLock lock(mutex_);
  sink_ = options_.path == "-" ? make_stdout_sink() : make_file_sink(options_.path, before_.keep_bytes);
  if (before_.keep_bytes == 0) sink_->write(text_of(header_));
}

void PointFile::append(const ordered_json& line) {
  const MutexLock lock(mutex_);
  sink_->write(text_of(line));
  written_.push_back(line);
}

void PointFile::finish() {
  const MutexLock lock(mutex_);
  sink_->finish();
}

SweepResults PointFile::results() const {
  const MutexLock lock(mutex_);
  SweepResults all{header_, before_.lines, 0};
  all.lines.insert(all.lines.end(), written_.begin(), written_.end());
  all.lines = last_of_each(all.lines);
  return all;
}

}  // namespace sluice::apps
