// All problems of a configuration, collected so that one run shows them all. Not thread-safe.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace sluice {

class ConfigProblems {
 public:
  /// What the following problems are about: a file's path, or "--set a.b=c".
  void set_source(std::string source);

  /// Adds `source:line: key: problem; fix`; a line of 0 and an empty key are left out.
  void add(int line, std::string_view key, std::string_view problem, std::string_view fix);
  /// Adds the text of an Error that was made elsewhere.
  void add_message(std::string message);

  bool empty() const { return problems_.empty(); }
  /// Throws Error{kInvalidArgument} with one problem a line, by source and then by line; does nothing when
  /// there are none.
  void throw_if_any() const;

 private:
  struct Problem {
    int source_number, line;
    std::string text;
  };

  std::string source_;
  int source_number_ = 0;
  std::vector<Problem> problems_;
};

}  // namespace sluice
