#include "core/tokenizer/pre_tokenizer.h"

#include <array>
#include <new>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "core/error.h"
#include "core/tokenizer/utf8.h"

namespace sluice {
namespace {

// GPT-2's pattern. Its \s is Unicode's White_Space, which is written out here because PCRE2's \s also
// takes U+180E, which Unicode removed from that property in version 6.3.
#define SLUICE_SPACE R"(\t-\r\x{85}\p{Z})"
constexpr char kPattern[] = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+)"
                            "| ?[^" SLUICE_SPACE R"(\p{L}\p{N}]+)"
                            "|[" SLUICE_SPACE "]+(?![^" SLUICE_SPACE
                            "])"
                            "|[" SLUICE_SPACE "]+";
#undef SLUICE_SPACE

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

}  // namespace

struct PreTokenizer::Pattern {
  pcre2_code* code = nullptr;
  ~Pattern() { pcre2_code_free(code); }
};

struct PreTokenizer::Cutter::Match {
  pcre2_match_data* data = nullptr;
  ~Match() { pcre2_match_data_free(data); }
};

PreTokenizer::PreTokenizer() : pattern_(std::make_unique<Pattern>()) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  pattern_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(kPattern), PCRE2_ZERO_TERMINATED,
                                 PCRE2_UTF | PCRE2_ANCHORED, &error, &offset, nullptr);
  SLUICE_CHECK(
      pattern_->code != nullptr, Code::kInternal,
      fmt::format("PCRE2 refuses the pre-tokenizer's pattern at {}: {}", offset, pcre2_message(error)),
      "use a PCRE2 that is built with Unicode support");
  // Where no machine code can be made (a hardened kernel), PCRE2 interprets: slower, the same pieces.
  pcre2_jit_compile(pattern_->code, PCRE2_JIT_COMPLETE);
}

PreTokenizer::~PreTokenizer() = default;

PreTokenizer::Cutter::Cutter(const PreTokenizer& pre_tokenizer)
    : pre_tokenizer_(&pre_tokenizer), match_(std::make_unique<Match>()) {
  match_->data = pcre2_match_data_create(1, nullptr);
  if (match_->data == nullptr) throw std::bad_alloc();
}

PreTokenizer::Cutter::~Cutter() = default;

void PreTokenizer::Cutter::start(std::string_view text) {
  rest_ = text;
  valid_run_ = {};
  offset_ = 0;
}

std::string_view PreTokenizer::Cutter::next() {
  if (offset_ == valid_run_.size()) {
    if (rest_.empty()) return {};
    valid_run_ = rest_.substr(0, valid_utf8_prefix(rest_));
    offset_ = 0;
    rest_.remove_prefix(valid_run_.size());
    if (valid_run_.empty()) {
      std::size_t length = 0;
      while (length < rest_.size()) {
        const Utf8Step step = next_utf8(rest_.substr(length));
        if (step.kind == Utf8Kind::kValid) break;
        length += step.length;
      }
      const std::string_view invalid = rest_.substr(0, length);
      rest_.remove_prefix(length);
      return invalid;
    }
  }
  const int found =
      pcre2_match(pre_tokenizer_->pattern_->code, reinterpret_cast<PCRE2_SPTR>(valid_run_.data()),
                  valid_run_.size(), offset_, PCRE2_NO_UTF_CHECK, match_->data, nullptr);
  SLUICE_CHECK(found > 0, Code::kInternal,
               fmt::format("pre-tokenizer failed at byte {} of {}: {}", offset_, valid_run_.size(),
                           pcre2_message(found)),
               "cut the text into shorter ones");
  const std::size_t end = pcre2_get_ovector_pointer(match_->data)[1];
  SLUICE_ASSERT(end > offset_);
  const std::string_view piece = valid_run_.substr(offset_, end - offset_);
  offset_ = end;
  return piece;
}

}  // namespace sluice
