#include "apps/sweep/points.h"

#include <algorithm>
#include <charconv>
#include <numeric>
#include <set>

#include <fmt/format.h>

#include "apps/sweep/known_flags.h"
#include "core/error.h"
#include "core/store/checksum.h"

namespace sluice::apps {
namespace {

using Flags = std::map<std::string, std::string>;

std::string id_of(const Flags& flags) {
  std::string text;
  for (const auto& [name, value] : flags) text += name + "=" + value + "\n";
  return fmt::format("{:016x}", store_checksum(std::as_bytes(std::span(text))));
}

/// "48x3" or "48 3" as {48, 3}.
std::optional<std::pair<std::string, std::string>> parse_block(std::string text) {
  for (char& c : text) {
    if (c == 'x') c = ' ';
  }
  const std::size_t space = text.find(' ');
  if (space == std::string::npos) return std::nullopt;
  const std::string size = text.substr(0, space), count = text.substr(text.find_last_of(' ') + 1);
  const auto is_count = [](const std::string& word) {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    return error == std::errc() && end == word.data() + word.size() && value > 0;
  };
  if (!is_count(size) || !is_count(count)) return std::nullopt;
  return std::pair(size, count);
}

/// A block that cannot be taken stays among the flags.
void take_block_apart(SweepPoint& point) {
  const auto block = point.flags.find(std::string(kBlock));
  if (block == point.flags.end()) return;
  if (point.flags.contains("gpu-batch-size") || point.flags.contains("num-gpu-batches")) {
    point.problem = "block and gpu-batch-size or num-gpu-batches contradict each other; state one of them";
    return;
  }
  auto shape = parse_block(block->second);
  if (block->second == kPlanned) shape.emplace(kPlanned, kPlanned);
  if (!shape) {
    point.problem = fmt::format("block '{}' is no shape; write 48x3", block->second);
    return;
  }
  point.flags.erase(block);
  point.flags["gpu-batch-size"] = shape->first;
  point.flags["num-gpu-batches"] = shape->second;
}

/// Every combination of the axes, the last axis fastest.
std::vector<Flags> product_of(const SweepFile& sweep) {
  std::vector<Flags> product = {{}};
  for (const FlagSetting& axis : sweep.axes.settings) {
    const auto size = static_cast<std::int64_t>(product.size() * axis.values.size());
    SLUICE_CHECK(size <= kMostPoints, Code::kInvalidArgument,
                 fmt::format("{}: the axes up to '{}' make {} combinations, at most {} are taken",
                             sweep.source, axis.name, size, kMostPoints),
                 "take fewer values, or points of their own");
    std::vector<Flags> next;
    next.reserve(static_cast<std::size_t>(size));
    for (const Flags& flags : product) {
      for (const std::string& value : axis.values) {
        next.push_back(flags);
        next.back()[axis.name] = value;
      }
    }
    product = std::move(next);
  }
  return product;
}

class PointList {
 public:
  explicit PointList(const PointOptions& options) : options_(options) {}

  void add(const SweepFile& sweep) {
    for (const StatedPoint& stated : sweep.points) {
      SweepPoint point = new_point(sweep, stated.flags.settings);
      point.label = point.what = stated.label;
      point.published_tokens_per_sec = stated.published_tokens_per_sec;
      add_on_each_hardware(sweep, std::move(point));
    }
    // Without axes and points, the flags are the only point.
    if (!sweep.axes.settings.empty() || sweep.points.empty()) add_product(sweep);
  }

  std::vector<SweepPoint> take() { return std::move(points_); }

 private:
  void add_product(const SweepFile& sweep) {
    std::vector<Flags> product = product_of(sweep);
    const auto total = static_cast<std::int64_t>(product.size());
    const std::int64_t sample = options_.sample.value_or(sweep.sample);
    std::vector<std::int64_t> taken(product.size());
    std::iota(taken.begin(), taken.end(), 0);
    if (sample > 0 && sample < total) taken = draw(total, sample, options_.seed.value_or(sweep.seed));
    for (const std::int64_t index : taken) {
      SweepPoint point = new_point(sweep, {});
      for (const auto& [name, value] : product[static_cast<std::size_t>(index)]) {
        point.flags[name] = value;
        point.what += (point.what.empty() ? "" : ", ") + name + " " + value;
      }
      add_on_each_hardware(sweep, std::move(point));
    }
  }

  static SweepPoint new_point(const SweepFile& sweep, const std::vector<FlagSetting>& own) {
    SweepPoint point;
    point.sweep = sweep.name;
    point.timeout_sec = sweep.timeout_sec;
    point.steady_share = sweep.steady_share;
    for (const FlagSetting& setting : sweep.flags.settings)
      point.flags[setting.name] = setting.values.front();
    for (const FlagSetting& setting : own) point.flags[setting.name] = setting.values.front();
    return point;
  }

  void add_on_each_hardware(const SweepFile& sweep, SweepPoint point) {
    for (const FlagSetting& setting : options_.settings) point.flags[setting.name] = setting.values.front();
    take_block_apart(point);
    const std::vector<std::string>& hardware = options_.hardware.empty() ? sweep.hardware : options_.hardware;
    if (hardware.empty() || point.flags.contains("hardware")) {
      add_once(std::move(point));
      return;
    }
    for (const std::string& profile : hardware) {
      SweepPoint on_profile = point;
      on_profile.flags["hardware"] = profile;
      if (hardware.size() > 1) on_profile.what += " on " + profile;
      add_once(std::move(on_profile));
    }
  }

  void add_once(SweepPoint point) {
    point.id = id_of(point.flags);
    if (point.what.empty()) point.what = point.id;
    if (!ids_.insert(point.id).second) return;
    point.number = static_cast<std::int64_t>(points_.size());
    points_.push_back(std::move(point));
    SLUICE_CHECK(std::ssize(points_) <= kMostPoints, Code::kInvalidArgument,
                 fmt::format("more than {} points", kMostPoints), "take fewer values or fewer files");
  }

  const PointOptions& options_;
  std::vector<SweepPoint> points_;
  std::set<std::string> ids_;
};

}  // namespace

std::string SweepPoint::value(const std::string& name) const {
  const auto found = flags.find(name);
  return found == flags.end() || found->second == kPlanned ? std::string() : found->second;
}

bool SweepPoint::is_planned() const {
  return value("percent").empty() ||
         std::any_of(flags.begin(), flags.end(), [](const auto& flag) { return flag.second == kPlanned; });
}

std::vector<std::string> arguments_of(const SweepPoint& point, FlagReader reader) {
  std::vector<std::string> words;
  for (const auto& [name, value] : point.flags) {
    const KnownFlag* flag = find_flag(name);
    const std::string& spelling = reader == FlagReader::kGenerate ? flag->generate : flag->plan;
    if (spelling.empty() || value == kPlanned) continue;
    if (flag->kind == KnownFlag::Kind::kSwitch) {
      const KnownFlag* opposite = find_flag("no-" + name);
      const std::string off = opposite == nullptr               ? ""
                              : reader == FlagReader::kGenerate ? opposite->generate
                                                                : opposite->plan;
      if (value == "true") words.push_back("--" + spelling);
      if (value == "false" && !off.empty()) words.push_back("--" + off);
    } else if (flag->num_values == 1) {
      words.push_back(fmt::format("--{}={}", spelling, value));
    } else {
      words.push_back("--" + spelling);
      for (std::size_t at = 0; at < value.size();) {
        const std::size_t end = std::min(value.find(' ', at), value.size());
        words.push_back(value.substr(at, end - at));
        at = end + 1;
      }
    }
  }
  return words;
}

std::vector<std::int64_t> draw(std::int64_t total, std::int64_t count, std::uint64_t seed) {
  // Fisher and Yates's shuffle, cut short, over splitmix64 (Steele et al. 2014).
  const auto next = [&seed] {
    std::uint64_t z = (seed += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  };
  std::vector<std::int64_t> numbers(static_cast<std::size_t>(total));
  std::iota(numbers.begin(), numbers.end(), 0);
  for (std::int64_t i = 0; i < count; ++i) {
    const auto other = i + static_cast<std::int64_t>(next() % static_cast<std::uint64_t>(total - i));
    std::swap(numbers[static_cast<std::size_t>(i)], numbers[static_cast<std::size_t>(other)]);
  }
  numbers.resize(static_cast<std::size_t>(count));
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

std::vector<SweepPoint> points_of(std::span<const SweepFile> sweeps, const PointOptions& options) {
  PointList list(options);
  for (const SweepFile& sweep : sweeps) list.add(sweep);
  return list.take();
}

}  // namespace sluice::apps
