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

/// A bound of 3.2 s on the GPU, a prediction of 3.6 s, and peaks of two lanes.
Forecast example_forecast() {
  Forecast forecast;
  forecast.origin = "/home/me/.config/sluice/hardware.yaml";
  forecast.floor.gpu_sec = 3.2;
  forecast.floor.h2d_sec = 1;
  forecast.predicted.total_sec = 3.6;
  forecast.predicted.prefill_sec = 1.25;
  forecast.predicted.decode_sec = 2.25;
  forecast.predicted.generated_tokens = 256;
  forecast.predicted.passes.resize(32);
  const auto lane = [&](policy::LaneKind kind) -> policy::SimulatedLane& {
    return forecast.predicted.lanes[policy::lane_index(kind)];
  };
  lane(policy::LaneKind::kDiskRead) = {.steps = 20, .bytes = 3'220'000'000, .busy_sec = 1.5};
  lane(policy::LaneKind::kGpu) = {.steps = 40, .busy_sec = 3.3};
  forecast.peak_bytes_per_sec[policy::lane_index(policy::LaneKind::kDiskRead)] = 2e9;
  return forecast;
}

TEST(RunReport, WithAProfileGivesTheBoundAndPredictedAgainstMeasured) {
  const Forecast forecast = example_forecast();
  const std::string text = run_report(example(), {.total = 9, .done = 9}, {}, &forecast);
  EXPECT_THAT(text,
              HasSubstr("bound      80.0 tokens/s (products and attention on the GPU), of which 80 % are "
                        "reached; by /home/me/.config/sluice/hardware.yaml"));
  EXPECT_THAT(text, HasSubstr("lane                bytes      GB/s  of peak     busy  stalled"));
  EXPECT_THAT(text, HasSubstr("disk_read        3.00 GiB      1.61     80 %   50.0 %    2.5 %"));
  EXPECT_THAT(text, HasSubstr("gpu                     -         -        -   75.0 %   25.0 %"));
  EXPECT_THAT(text, HasSubstr("                    predicted  measured difference\n"
                              "  tokens/s             71.111    64.000    +11.1 %\n"
                              "  prefill s             1.250     1.000    +25.0 %\n"
                              "  decode s              2.250     2.500    -10.0 %\n"
                              "  disk_read busy s      1.500     2.000    -25.0 %\n"
                              "  gpu busy s            3.300     3.000    +10.0 %\n"));
}

TEST(RunReport, NamesTheIdeasThatAreOff) {
  policy::Placement placement;
  EXPECT_THAT(run_report(example(), {}, placement), HasSubstr("1 x 1 sequences, CPU attention off\n"));
  placement.prefetch = false;
  EXPECT_THAT(run_report(example(), {}, placement), HasSubstr("CPU attention off, no prefetch\n"));
  placement.mixing = false;
  EXPECT_THAT(run_report(example(), {}, placement), HasSubstr("CPU attention off, no mixing, no prefetch\n"));
  Forecast forecast = example_forecast();
  forecast.floor.unprefetched_sec = 4;
  EXPECT_THAT(
      run_report(example(), {.total = 9, .done = 9}, placement, &forecast),
      HasSubstr("bound      64.0 tokens/s (weights and the GPU's work, which --no-prefetch keeps apart)"));
}

TEST(RunReport, WithoutAProfileSaysHowToGetTheLines) {
  const std::string text = run_report(example(), {.total = 9, .done = 9}, {});
  EXPECT_THAT(text, HasSubstr("bound      not known, nor a prediction: `sluice profile`"));
  EXPECT_THAT(text, Not(HasSubstr("predicted ")));
  EXPECT_THAT(text, Not(HasSubstr("of peak")));
  EXPECT_THAT(run_report(example(), {.total = 9, .done = 8}, {}), Not(HasSubstr("bound"))) << "interrupted";
}

// A microsecond more or less of a lane that hardly works is no news.
TEST(RunReport, DoesNotCompareALaneThatHardlyWorks) {
  offload::RunStats stats = example();
  stats.lanes.push_back({"d2h_urgent", 1000, 5, 0.01, 0});
  const Forecast forecast = example_forecast();
  EXPECT_THAT(run_report(stats, {}, {}, &forecast),
              HasSubstr("d2h_urgent busy s     0.000     0.010          -\n"));
  EXPECT_FALSE(
      summary_json(stats, {}, &forecast).at("predicted").at("difference").contains("d2h_urgent busy s"));
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

TEST(SummaryJson, CarriesTheForecast) {
  const Forecast forecast = example_forecast();
  const nlohmann::ordered_json json = summary_json(example(), {}, &forecast);
  EXPECT_EQ(json.at("profile"), forecast.origin);
  EXPECT_DOUBLE_EQ(json.at("bound").at("tokens_per_sec"), 80);
  EXPECT_DOUBLE_EQ(json.at("bound").at("reached"), 0.8);
  EXPECT_EQ(json.at("bound").at("wall"), "products and attention on the GPU");
  EXPECT_DOUBLE_EQ(json.at("predicted").at("wall_sec"), 3.6);
  EXPECT_DOUBLE_EQ(json.at("predicted").at("lane_busy_sec").at("gpu"), 3.3);
  EXPECT_NEAR(json.at("predicted").at("difference").at("tokens/s"), 1. / 9, 1e-12);
  EXPECT_DOUBLE_EQ(json.at("lanes").at(0).at("share_of_peak"), 0.805);
  EXPECT_FALSE(json.at("lanes").at(2).contains("share_of_peak"));
  EXPECT_FALSE(summary_json(example(), {}).contains("bound")) << "without a profile";
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
