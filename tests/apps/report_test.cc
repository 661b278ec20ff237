#include "apps/generate/report.h"

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "apps/generate/progress.h"
#include "core/units.h"

namespace sluice::apps {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

offload::RunStats example() {
  offload::RunStats stats;
  stats.lanes = {{"disk_read", 3'220'000'000, 20, 2.0, 0.1}, {"h2d", 0, 0, 0, 0}, {"gpu", 0, 40, 3.0, 1.0}};
  stats.planned_bytes = {{1_GiB, 2_GiB, 0}};
  stats.reserved_bytes = {{1_GiB, 3_GiB, 0}};
  stats.num_passes = 32;
  stats.prompt_tokens = 1000;
  stats.generated_tokens = 256;
  stats.wall_sec = 4;
  stats.prefill_sec = 1;
  stats.decode_sec = 2.5;
  stats.decode_passes_tokens = 248;
  stats.prefill_passes_tokens = 8;
  stats.first_token_sec = 0.75;
  stats.load_sec = 6.25;
  stats.first_layer_sec = 8.5;
  stats.device_bytes = 17_GiB;
  stats.peak_resident_bytes = 5_GiB;
  return stats;
}

TEST(RunReport, GivesRatesLanesAndMemory) {
  const std::string text = run_report(example(), {.total = 9, .done = 9, .done_before = 2, .refused = 1}, {});
  EXPECT_THAT(text, HasSubstr("9 of 9 done, 2 of them by an earlier run, 1 refused"));
  EXPECT_THAT(text, HasSubstr("1000 prompt tokens in 1.000 s, 1000.0 tokens/s; first token after 0.750 s"));
  EXPECT_THAT(text, HasSubstr("248 tokens in 2.500 s, 99.2 tokens/s"));
  EXPECT_THAT(text, HasSubstr("256 tokens in 4.000 s, 64.0 tokens/s, 32 passes"));
  EXPECT_THAT(text, HasSubstr("disk_read        3.00 GiB      1.61   50.0 %    2.5 %"));
  EXPECT_THAT(text, Not(HasSubstr("h2d"))) << "a lane without steps is left out";
  EXPECT_THAT(text, HasSubstr("cpu              2.00 GiB     3.00 GiB"));
  EXPECT_THAT(text, HasSubstr("first layer computed after 8.500 s, weights in place in 6.250 s of them"));
  EXPECT_THAT(text, HasSubstr("gpu memory taken since its start, as the driver counts it: 17.00 GiB"));
  EXPECT_THAT(text, HasSubstr("peak resident size 5.00 GiB"));
}

TEST(RunReport, SurvivesARunOfNothing) { EXPECT_THAT(run_report({}, {}, {}), HasSubstr("0 of 0 done")); }

TEST(BenchmarkReport, GivesFlexGensFigures) {
  policy::Workload work;
  work.num_requests = 8;
  work.max_prompt_len = 125;
  work.max_gen_len = 32;
  const std::string text = benchmark_report(example(), work);
  EXPECT_THAT(text, HasSubstr("peak gpu mem: 1.074 GB  peak cpu mem: 3.221 GB  peak disk mem: 0.000 GB"));
  EXPECT_THAT(text, HasSubstr("prefill latency: 1.000 s  prefill throughput: 1000.000 token/s"));
  EXPECT_THAT(text, HasSubstr("decode latency: 2.500 s  decode throughput: 99.200 token/s"));
  EXPECT_THAT(text, HasSubstr("total latency: 3.500 s  total throughput: 73.143 token/s"));
}

TEST(SummaryJson, CarriesTheSameNumbers) {
  const nlohmann::ordered_json json = summary_json(example(), {.total = 9, .done = 8});
  EXPECT_EQ(json.at("kind"), "summary");
  EXPECT_EQ(json.at("lanes").at(0).at("bytes"), 3'220'000'000);
  EXPECT_EQ(json.at("memory").at("cpu").at("reserved_bytes"), 3_GiB);
  EXPECT_EQ(json.at("total_tokens_per_sec"), 64.0);
  EXPECT_EQ(json.at("first_layer_sec"), 8.5);
  EXPECT_EQ(json.at("device_bytes"), 17_GiB);
}

TEST(ProgressText, ShowsRatesSinceTheLastSample) {
  ProgressSample before{.at_sec = 10, .done = 3, .total = 9, .stats = example()};
  ProgressSample now = before;
  now.at_sec = 12;
  now.done = 5;
  now.stats.generated_tokens += 100;
  now.stats.lanes[0].bytes += 1'000'000'000;
  now.stats.lanes[0].stalled_sec += 0.5;
  const std::string text = progress_text(before, now);
  EXPECT_EQ(text, "5/9 requests  356 tokens  50.0 tokens/s  disk_read 0.50 GB/s (stalled 25 %)");
  EXPECT_THAT(progress_text(now, now), HasSubstr("0.0 tokens/s"));
  EXPECT_THAT(progress_text({}, now), HasSubstr("5/9")) << "lanes that the first sample does not know";
}

}  // namespace
}  // namespace sluice::apps
