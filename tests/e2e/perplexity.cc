#include "tests/e2e/perplexity.h"

#include <cmath>
#include <fstream>
#include <sstream>

#include <gtest/gtest.h>

#include "core/tokenizer/tokenizer.h"
#include "tests/e2e/e2e.h"
#include "tests/support/paths.h"

namespace sluice::testing {

double books_perplexity(const std::filesystem::path& checkpoint, const kernels::FormatConfig& formats) {
  constexpr std::size_t kWindow = 512;
  constexpr std::size_t kWindows = 127;
  constexpr std::string_view kSeparator = "\n<|endoftext|>\n";
  std::ifstream in(golden("books-val.txt"));
  std::stringstream text;
  text << in.rdbuf();
  const std::string books = text.str();
  const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(checkpoint);
  std::vector<std::int32_t> ids;
  for (std::size_t begin = 0; begin <= books.size();) {
    const std::size_t end = std::min(books.find(kSeparator, begin), books.size());
    const auto piece =
        tokenizer->encode(std::string_view(books).substr(begin, end - begin), /*add_bos=*/true);
    ids.insert(ids.end(), piece.begin(), piece.end());
    begin = end + kSeparator.size();
  }
  EXPECT_GE(ids.size(), kWindow * kWindows);

  std::vector<offload::Request> requests;
  for (std::size_t first = 0; first + kWindow <= ids.size() && requests.size() < kWindows; first += kWindow) {
    offload::Request request;
    const auto begin = ids.begin() + static_cast<std::ptrdiff_t>(first);
    request.prompt_ids.assign(begin, begin + static_cast<std::ptrdiff_t>(kWindow));
    request.max_new_tokens = 0;
    request.want_prompt_logprobs = true;
    requests.push_back(std::move(request));
  }
  offload::ModelSource source;
  source.store = store_of_checkpoint(checkpoint, formats);
  policy::Placement placement;
  placement.gpu_batch_size = 16;
  const RunOutcome outcome = run_requests(source, placement, std::move(requests));
  EXPECT_TRUE(outcome.violations.empty());
  double sum = 0;
  std::size_t count = 0;
  for (const offload::Result& result : outcome.results) {
    EXPECT_TRUE(result.token_ids.empty());
    for (const float logprob : result.prompt_logprobs) sum += static_cast<double>(logprob);
    count += result.prompt_logprobs.size();
  }
  EXPECT_EQ(count, 64897U);
  return std::exp(-sum / static_cast<double>(count));
}

}  // namespace sluice::testing
