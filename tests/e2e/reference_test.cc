// The engine against our own forward pass in double precision, with K and V rounded at the same point.
//
// Where fp32 noise decides between two neighbours of the KV format, the two would part by far more than that
// noise: 1e-7 on K and V before rounding to fp16 moves log-probs of the trained model by 7e-4. So the KV of
// the run rests on disk, the test reads it there, compares every element with the exact one, and goes on from
// the rounded value that the engine stored.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "core/store/manifest.h"
#include "core/tokenizer/tokenizer.h"
#include "tests/e2e/reference_model.h"
#include "tests/e2e/small_model.h"
#include "tests/support/paths.h"

namespace sluice {
namespace {

using offload::Request;
using offload::Result;
using testing::Columns;
using testing::ReferenceModel;

constexpr double kTolerance = 1e-4;
constexpr std::int64_t kGenerated = 6;

/// Prompts around the page size and of several pages: text for the trained model, random ids for the others.
std::vector<std::vector<std::int32_t>> prompts_for(const std::string& checkpoint, const ModelSpec& spec) {
  const bool trained = has_tokenizer(testing::golden(checkpoint));
  std::vector<std::int32_t> text;
  if (trained) {
    std::ifstream in(testing::golden("books-val.txt"));
    std::string words(6000, ' ');
    in.read(words.data(), static_cast<std::streamsize>(words.size()));
    text = open_tokenizer(testing::golden(checkpoint))->encode(words, /*add_bos=*/false);
  }
  std::vector<std::vector<std::int32_t>> prompts;
  std::size_t first = 0;
  for (const std::int64_t length : {63, 64, 65, 128, trained ? 333 : 200}) {
    if (!trained) {
      prompts.push_back(testing::prompt_of(length, spec.vocab_size, static_cast<std::uint32_t>(length)));
      continue;
    }
    std::vector<std::int32_t>& prompt = prompts.emplace_back();
    prompt.push_back(spec.bos_id);
    for (std::int64_t i = 1; i < length; ++i) prompt.push_back(text.at(first++));
  }
  return prompts;
}

/// A finished run with the KV that it left on disk.
struct KvRun {
  std::vector<Result> results;
  std::vector<std::int32_t> seats;  // of each request
  policy::RunShape shape;
  std::vector<std::byte> pages;

  /// Element of K or V as stored.
  double at(std::size_t request, std::int64_t layer, bool is_value, std::int64_t feature,
            std::int64_t token) const {
    const policy::SeatPages& seat = shape.seats.seats[static_cast<std::size_t>(seats[request])];
    const std::int64_t page = layer * shape.seats.pages_per_layer[Tier::kDisk] +
                              seat.first_slot[Tier::kDisk] + token / kKvPageTokens;
    const std::int64_t head = feature / shape.spec.head_dim + (is_value ? shape.spec.num_kv_heads : 0);
    const std::int64_t element =
        (head * kKvPageTokens + token % kKvPageTokens) * shape.spec.head_dim + feature % shape.spec.head_dim;
    const std::byte* const bytes = pages.data() + page * shape.kv.page_stride();
    if (shape.kv.format == KvFormat::kF32) {
      float value = 0;
      std::memcpy(&value, bytes + element * 4, sizeof(value));
      return static_cast<double>(value);
    }
    Half value;
    std::memcpy(&value, bytes + element * 2, sizeof(value));
    return static_cast<double>(to_float(value));
  }
};

/// Every request has a seat of its own, and all KV is on disk.
KvRun run_on_disk(const std::string& checkpoint, KvFormat kv_format, const std::vector<Request>& requests) {
  KvRun run;
  const auto hooks = std::make_shared<offload::RunHooks>();
  hooks->on_shape = [&](const policy::RunShape& shape) { run.shape = shape; };
  hooks->on_finished = [&](const auto&, const policy::Pass* pass, const auto&) {
    if (pass == nullptr) return;
    for (const policy::Admission& admission : pass->admissions) run.seats.push_back(admission.seat);
  };
  const std::filesystem::path folder = testing::store_of(checkpoint).parent_path() / "kv";
  std::filesystem::create_directories(folder);
  offload::EngineOptions options;
  options.placement = testing::placed({100, 0, 0, 0, 100, 0}, 3, 2, /*cpu_attention=*/true);
  options.placement.kv_format = kv_format;
  options.placement.max_tokens_per_gpu_batch = 200;
  options.workload =
      testing::workload_of(requests, read_manifest(testing::store_of(checkpoint)).spec.max_positions);
  options.workload.seat_demand.clear();  // seats are taken in the order of the requests
  options.num_threads = 2;
  options.disk_dir = folder;
  options.hooks = hooks;
  offload::Engine engine(testing::model(checkpoint), nullptr, options);
  for (const Request& request : requests) engine.submit(request);
  run.results.resize(requests.size());
  engine.run({}, [&](Result result) {
    const auto index = static_cast<std::size_t>(result.index);
    run.results.at(index) = std::move(result);
  });
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.path().filename().string().rfind("tier-", 0) != 0) continue;
    std::ifstream in(entry.path(), std::ios::binary);
    run.pages.resize(entry.file_size());
    in.read(reinterpret_cast<char*>(run.pages.data()), static_cast<std::streamsize>(run.pages.size()));
  }
  return run;
}

/// Replaces exact K and V by the stored ones and keeps how far these are from the best rounding.
class Rounding {
 public:
  Rounding(const KvRun& run, std::size_t request) : run_(run), request_(request) {}

  void operator()(std::int64_t layer, Columns& k, Columns& v) {
    replace(layer, false, k);
    replace(layer, true, v);
  }
  /// Largest distance beyond half a unit in the last place, as a share of the largest element of the layer.
  double worst() const { return worst_; }

 private:
  void replace(std::int64_t layer, bool is_value, Columns& exact) {
    double largest = 0;
    for (const double x : exact.data) largest = std::max(largest, std::abs(x));
    for (std::int64_t f = 0; f < exact.features; ++f) {
      for (std::int64_t t = 0; t < exact.tokens; ++t) {
        double& x = exact.row(f)[t];
        const double stored = run_.at(request_, layer, is_value, f, t);
        const double beyond = std::abs(stored - x) - half_unit(x);
        worst_ = std::max(worst_, std::isnan(beyond) ? INFINITY : beyond / largest);
        x = stored;
      }
    }
  }
  double half_unit(double x) const {
    if (run_.shape.kv.format == KvFormat::kF32) return 0;
    return std::ldexp(0.5, std::max(std::ilogb(x), -14) - 10);  // 10 bits after the point, subnormal below
  }

  const KvRun& run_;
  std::size_t request_;
  double worst_ = 0;
};

class ReferenceRun : public ::testing::TestWithParam<std::tuple<const char*, KvFormat>> {};

TEST_P(ReferenceRun, AgreesOnPromptsAndOnWhatItGenerates) {
  const auto& [checkpoint, kv_format] = GetParam();
  const ReferenceModel reference(testing::store_of(checkpoint));
  std::vector<Request> requests;
  for (std::vector<std::int32_t>& prompt : prompts_for(checkpoint, reference.spec())) {
    Request request;
    request.prompt_ids = std::move(prompt);
    request.max_new_tokens = kGenerated;
    request.ignore_eos = true;
    request.want_logprobs = true;
    request.want_prompt_logprobs = true;
    requests.push_back(std::move(request));
  }
  const KvRun run = run_on_disk(checkpoint, kv_format, requests);
  ASSERT_EQ(run.seats.size(), requests.size());

  double worst = 0;
  double worst_rounding = 0;
  std::int64_t count = 0;
  const auto compare = [&](float found, double expected) {
    worst = std::max(worst, std::abs(static_cast<double>(found) - expected));
    ++count;
  };
  for (std::size_t r = 0; r < requests.size(); ++r) {
    const Result& result = run.results[r];
    std::vector<std::int32_t> ids = requests[r].prompt_ids;
    const std::size_t prompt_len = ids.size();
    ASSERT_EQ(result.token_ids.size(), static_cast<std::size_t>(kGenerated));
    // The last token is chosen, but never read.
    ids.insert(ids.end(), result.token_ids.begin(), result.token_ids.end() - 1);
    Rounding rounding(run, r);
    const auto expected = reference.log_probs(ids, std::ref(rounding));
    worst_rounding = std::max(worst_rounding, rounding.worst());
    ASSERT_EQ(result.prompt_logprobs.size(), prompt_len - 1);
    for (std::size_t t = 0; t + 1 < prompt_len; ++t)
      compare(result.prompt_logprobs[t], expected[t][static_cast<std::size_t>(ids[t + 1])]);
    ASSERT_EQ(result.logprobs.size(), result.token_ids.size());
    for (std::size_t t = 0; t < result.token_ids.size(); ++t) {
      const std::vector<double>& row = expected[prompt_len - 1 + t];
      const double chosen = row[static_cast<std::size_t>(result.token_ids[t])];
      compare(result.logprobs[t].logprob, chosen);
      EXPECT_LE(*std::max_element(row.begin(), row.end()) - chosen, 2 * kTolerance)
          << "request " << r << " token " << t << " is not the most likely one";
    }
  }
  EXPECT_LE(worst, kTolerance);
  EXPECT_LE(worst_rounding, 1e-5) << "K and V are not what rounding gives";
  std::cout << fmt::format("worst error {:.2e} of {} log-probs, {:.2e} of K and V\n", worst, count,
                           worst_rounding);
}

INSTANTIATE_TEST_SUITE_P(Opt, ReferenceRun,
                         ::testing::Combine(::testing::Values("tiny-opt-books-sparse80", "rand-opt-postln",
                                                              "rand-opt-bin-sharded"),
                                            ::testing::Values(KvFormat::kF32, KvFormat::kF16)));

// The oracle itself, against transformers in fp32.
TEST(ReferenceModel, AgreesWithTransformers) {
  for (const std::string checkpoint : {"rand-opt-postln", "rand-opt-bin-sharded"}) {
    const ReferenceModel reference(testing::store_of(checkpoint));
    for (const testing::GoldenCase& c : testing::golden_cases(checkpoint + ".golden.json")) {
      const auto log_probs = reference.log_probs(c.prompt_ids, [](std::int64_t, Columns&, Columns&) {});
      for (std::size_t t = 0; t < c.token_logprobs.size(); ++t) {
        EXPECT_NEAR(log_probs[t][static_cast<std::size_t>(c.prompt_ids[t + 1])], c.token_logprobs[t],
                    kTolerance)
            << checkpoint << " token " << t;
      }
    }
  }
}

}  // namespace
}  // namespace sluice
