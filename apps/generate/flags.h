// The command line of `generate`. Spellings that FlexGen has are kept; those of its flags that do nothing
// here or do not exist yet are accepted with a word, or refused by name.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "apps/generate/config.h"
#include "apps/generate/requests.h"

namespace CLI {
class App;
}

namespace sluice::apps {

struct GenerateFlags {
  // What this run reads and writes.
  std::vector<std::string> prompts;
  std::string prompts_file;
  std::string input;
  std::string output;
  bool resume = false;
  bool keep_going = false;
  bool progress = false;
  std::string trace;
  std::string stats_out;

  // Where settings come from.
  std::string run_config;
  std::vector<std::string> assignments;                         ///< --set a.b=c
  std::vector<std::function<void(GenerateConfig&)>> overrides;  ///< flags, in the order of the command line
  bool print_config = false;
};

/// Adds every option to `command`; they are written to `flags` when it is parsed.
void add_generate_flags(CLI::App& command, GenerateFlags& flags);

/// Settings from all sources. Throws Error{kInvalidArgument} for prompts from more than one source or from
/// none.
GenerateConfig resolve_config(const GenerateFlags& flags);

/// Requests that say nothing themselves. Throws Error{kInvalidArgument} naming the flag that is out of range.
offload::Request request_defaults(const GenerationConfig& config);

}  // namespace sluice::apps
