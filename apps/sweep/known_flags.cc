#include "apps/sweep/known_flags.h"

#include <algorithm>
#include <array>

#include <CLI/CLI.hpp>

#include "apps/generate/flags.h"
#include "apps/plan/problem.h"
#include "core/config/nearest.h"

namespace sluice::apps {
namespace {

// What a run reads and writes is the sweep's own business; what only prints is no axis.
constexpr std::array<std::string_view, 15> kLeftOut = {
    "help",      "prompt",     "prompts-file", "output",       "resume", "keep-going",  "progress", "trace",
    "stats-out", "run-config", "set",          "print-config", "json",   "no-marginal", "store"};

bool is_left_out(std::string_view name) {
  return std::find(kLeftOut.begin(), kLeftOut.end(), name) != kLeftOut.end();
}

/// Adds the options of `app`; `spelling` is where a flag keeps the name that this command takes.
void add_options(const CLI::App& app, std::string KnownFlag::*spelling, std::vector<KnownFlag>& flags) {
  for (const CLI::Option* option : app.get_options()) {
    const std::vector<std::string>& names = option->get_lnames();
    // Hidden options are refused by name, and positional ones have no long name.
    if (names.empty() || option->get_group().empty() || is_left_out(names.front())) continue;
    const auto shares_name = [&](const KnownFlag& flag) {
      return std::any_of(names.begin(), names.end(), [&](const std::string& name) {
        return std::find(flag.names.begin(), flag.names.end(), name) != flag.names.end();
      });
    };
    auto known = std::find_if(flags.begin(), flags.end(), shares_name);
    if (known == flags.end()) {
      KnownFlag flag;
      flag.name = names.front();
      const bool takes_value = option->get_items_expected_max() > 0;
      flag.kind = takes_value ? KnownFlag::Kind::kValue : KnownFlag::Kind::kSwitch;
      flag.num_values = std::max(1, option->get_items_expected_min());
      known = flags.insert(flags.end(), std::move(flag));
    }
    if (spelling == &KnownFlag::plan) known->name = names.front();  // gen-len, num-requests
    for (const std::string& name : names) {
      if (std::find(known->names.begin(), known->names.end(), name) == known->names.end())
        known->names.push_back(name);
    }
    (*known).*spelling = names.front();
  }
}

std::vector<KnownFlag> collect_flags() {
  std::vector<KnownFlag> flags;
  CLI::App generate;
  GenerateFlags generate_flags;
  add_generate_flags(generate, generate_flags);
  add_options(generate, &KnownFlag::generate, flags);
  CLI::App plan;
  PlanFlags plan_flags;
  add_plan_flags(plan, plan_flags);
  add_options(plan, &KnownFlag::plan, flags);
  flags.push_back({.name = std::string(kBlock), .names = {std::string(kBlock)}, .generate = {}, .plan = {}});
  return flags;
}

}  // namespace

const std::vector<KnownFlag>& known_flags() {
  static const std::vector<KnownFlag> flags = collect_flags();
  return flags;
}

const KnownFlag* find_flag(std::string_view name) {
  std::string spelled(name);
  std::replace(spelled.begin(), spelled.end(), '_', '-');
  for (const KnownFlag& flag : known_flags()) {
    if (std::find(flag.names.begin(), flag.names.end(), spelled) != flag.names.end()) return &flag;
  }
  return nullptr;
}

std::string suggest_flag(std::string_view name) {
  std::vector<std::string_view> names;
  for (const KnownFlag& flag : known_flags()) names.insert(names.end(), flag.names.begin(), flag.names.end());
  std::string spelled(name);
  std::replace(spelled.begin(), spelled.end(), '_', '-');
  return suggest_name(spelled, names);
}

}  // namespace sluice::apps
