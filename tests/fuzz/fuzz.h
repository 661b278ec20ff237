// What a fuzz target includes. A target is one file that defines LLVMFuzzerTestOneInput: it parses the bytes
// and returns 0 whether they were accepted or refused with an Error; anything else (another exception, a
// signal, a hang, a memory spike) is a finding. The same file runs under driver.cc (any compiler) and under
// libFuzzer (Clang, -DSLUICE_LIBFUZZER=ON). Not thread-safe: targets run one input at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace sluice::fuzz {

/// Tells the driver what became of the current input, usually an Error's text. Digits are ignored. An input
/// with an outcome not seen before joins the corpus that is mutated further, which leads the driver through a
/// parser check by check without instrumentation. Under libFuzzer, which has better feedback, it does
/// nothing.
void note_outcome(std::string_view outcome);

/// An input as a file, for parsers that open paths: memory only, rewritten in place, gone with the object.
class InputFile {
 public:
  InputFile();
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  /// Makes `bytes` the whole content and returns the path, the same each time.
  const std::filesystem::path& write(std::span<const std::uint8_t> bytes);

 private:
  int fd_ = -1;
  std::filesystem::path path_;
};

}  // namespace sluice::fuzz
