// Cuts text into the pieces inside which byte-pair merges may happen, by GPT-2's pattern. The compiled
// pattern is immutable and shared; a Cutter belongs to one thread.
#pragma once

#include <memory>
#include <string_view>

namespace sluice {

class PreTokenizer {
 public:
  PreTokenizer();
  ~PreTokenizer();
  PreTokenizer(const PreTokenizer&) = delete;
  PreTokenizer& operator=(const PreTokenizer&) = delete;

  /// Walks over the pieces of one text, which must outlive it. Pieces cover the text without gaps. A run of
  /// bytes that is not UTF-8 is a piece of its own, and the text before and after it is cut as if it ended
  /// there.
  class Cutter {
   public:
    explicit Cutter(const PreTokenizer& pre_tokenizer);
    ~Cutter();
    Cutter(const Cutter&) = delete;
    Cutter& operator=(const Cutter&) = delete;

    void start(std::string_view text);
    /// The next piece; empty at the end. Throws Error{kInternal} with PCRE2's message if matching fails.
    std::string_view next();

   private:
    struct Match;

    const PreTokenizer* pre_tokenizer_;
    std::unique_ptr<Match> match_;
    std::string_view rest_;       ///< not yet looked at
    std::string_view valid_run_;  ///< UTF-8 that is being cut
    std::size_t offset_ = 0;      ///< into valid_run_
  };

 private:
  struct Pattern;
  std::unique_ptr<Pattern> pattern_;
};

}  // namespace sluice
