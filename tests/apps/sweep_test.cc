// Sweep files, their points, predictions, resuming, and the report, inside the test.
#include <algorithm>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "apps/sweep/known_flags.h"
#include "apps/sweep/point_file.h"
#include "apps/sweep/points.h"
#include "apps/sweep/report.h"
#include "apps/sweep/sweep_file.h"
#include "core/error.h"
#include "tests/apps/run_command.h"
#include "tests/apps/temp_dir.h"

namespace sluice::apps {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

SweepFile parsed(const std::string& yaml) { return parse_sweep(yaml, "x.yaml", "x"); }

std::vector<SweepPoint> points(const std::string& yaml, const PointOptions& options = {}) {
  const std::vector<SweepFile> files = {parsed(yaml)};
  return points_of(files, options);
}

std::vector<json> lines_of(const std::string& path) {
  std::vector<json> lines;
  std::istringstream in(read_text(path));
  for (std::string line; std::getline(in, line);) lines.push_back(json::parse(line));
  return lines;
}

struct BadFile {
  std::string yaml, message;
};

TEST(SweepFile, ProblemsNameTheLineAndTheNearestFlag) {
  const std::vector<BadFile> cases = {
      {"axes:\n  percnt: [plan]\n",
       "x.yaml:2: axes.percnt: no flag of sluice generate or sluice plan; did you mean "
       "'percent'"},
      {"flags:\n  gpu-batch-sizes: 4\n", "x.yaml:2: flags.gpu-batch-sizes: no flag"},
      {"points:\n  - {modle: a}\n", "x.yaml:2: points[0].modle: no flag"},
      {"axis: {}\n", "x.yaml:1: axis: unknown key; did you mean 'axes'"},
      {"axes: {model: a}\n", "'a' is no list of values"},
      {"axes: {model: []}\n", "is no list of values"},
      {"flags: {model: [a, b]}\n", "is no value"},
      {"flags: {cpu-cache-compute: maybe}\n", "write true or false"},
      {"flags: {gen-len: 1, max-new-tokens: 2}\n", "'gen-len' is stated twice"},
      {"flags: {model: a}\naxes:\n  model: [b]\n", "x.yaml:3: axes.model: stands among the flags, too"},
      {"points: [{label: [1], model: a}]\n", "points[0].label"},
      {"points: [{published_tokens_per_sec: 0}]\n", "published_tokens_per_sec"},
      {"points: [4]\n", "is not a map of flags"},
      {"timeout_sec: -1\n", "timeout_sec"},
      {"sample: -2\n", "sample"},
      {"flags: {output: a}\n", "no flag"},
  };
  for (const BadFile& bad : cases) {
    try {
      parsed(bad.yaml);
      ADD_FAILURE() << "accepted: " << bad.yaml;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kInvalidArgument);
      EXPECT_THAT(e.what(), HasSubstr(bad.message)) << bad.yaml;
    }
  }
}

TEST(SweepFile, AllProblemsAreReportedTogether) {
  try {
    parsed("flags: {modell: a}\naxes: {percnt: [1]}\nsample: x\n");
    FAIL();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), AllOf(HasSubstr("modell"), HasSubstr("percnt"), HasSubstr("sample")));
  }
}

TEST(SweepFlags, KnowWhatGenerateAndPlanTake) {
  const KnownFlag* gen_len = find_flag("max_new_tokens");
  ASSERT_NE(gen_len, nullptr);
  EXPECT_EQ(gen_len->name, "gen-len");
  EXPECT_EQ(gen_len->generate, "max-new-tokens");
  const KnownFlag* percent = find_flag("percent");
  ASSERT_NE(percent, nullptr);
  EXPECT_EQ(percent->num_values, 6);
  EXPECT_EQ(find_flag("cpu-cache-compute")->kind, KnownFlag::Kind::kSwitch);
  EXPECT_EQ(find_flag("stats-out"), nullptr) << "the sweep's own business";
  EXPECT_EQ(find_flag("compress-cache"), nullptr) << "refused by generate";
  std::set<std::string> names;
  for (const KnownFlag& flag : known_flags()) {
    for (const std::string& name : flag.names) EXPECT_TRUE(names.insert(name).second) << name;
  }
}

TEST(SweepPoints, AreTheProductOfTheAxesAndThoseStated) {
  const auto all = points(
      "flags: {model: m, gen-len: 4}\n"
      "axes: {percent: [plan, [1, 99, 0, 100, 0, 100]], block: [48x3, 8 2, 8x2]}\n"
      "points: [{label: mine, model: other, published_tokens_per_sec: 2.5}]\n");
  ASSERT_EQ(all.size(), 5U) << "8x2 twice is one value";
  EXPECT_EQ(all[1].flags, (std::map<std::string, std::string>{{"model", "m"},
                                                              {"gen-len", "4"},
                                                              {"percent", "plan"},
                                                              {"gpu-batch-size", "48"},
                                                              {"num-gpu-batches", "3"}}));
  EXPECT_TRUE(all[1].is_planned());
  EXPECT_EQ(all[4].value("percent"), "1 99 0 100 0 100");
  EXPECT_FALSE(all[4].is_planned());
  EXPECT_EQ(all[0].label, "mine");
  EXPECT_EQ(all[0].value("model"), "other");
  EXPECT_EQ(all[0].published_tokens_per_sec, 2.5);
  std::set<std::string> ids;
  for (const SweepPoint& point : all) {
    EXPECT_EQ(point.number, std::ssize(ids));
    ids.insert(point.id);
  }
  EXPECT_EQ(ids.size(), all.size());
}

TEST(SweepPoints, BecomeTheWordsOfACommandLine) {
  const auto all = points(
      "flags: {model: m, percent: 1 99 0 100 0 100, cpu-cache-compute: false, max-latency: 4, no-mixing: "
      "true, no-prefetch: true}\n");
  ASSERT_EQ(all.size(), 1U);
  EXPECT_THAT(arguments_of(all[0], FlagReader::kPlan),
              ElementsAre("--no-cpu-cache-compute", "--max-latency=4", "--model=m", "--no-mixing",
                          "--no-prefetch", "--percent", "1", "99", "0", "100", "0", "100"));
  EXPECT_THAT(arguments_of(all[0], FlagReader::kGenerate),
              ElementsAre("--no-cpu-cache-compute", "--model=m", "--no-mixing", "--no-prefetch", "--percent",
                          "1", "99", "0", "100", "0", "100"));
}

TEST(SweepPoints, EachStandsOnEveryProfileAndOptionsWin) {
  EXPECT_EQ(points("hardware: [a, b]\naxes: {model: [x, y]}\npoints: [{hardware: c}]\n").size(), 5U);
  PointOptions options;
  options.hardware = {"mine"};
  options.settings = {parse_setting("disk-dir=/data"), parse_setting("model=z")};
  const auto all = points("hardware: [a, b]\naxes: {model: [x, y]}\n", options);
  ASSERT_EQ(all.size(), 1U) << "equal points are one";
  EXPECT_EQ(all[0].value("hardware"), "mine");
  EXPECT_EQ(all[0].value("disk-dir"), "/data");
  EXPECT_THROW(parse_setting("disk-dir"), Error);
  EXPECT_THROW(parse_setting("disc-dir=/x"), Error);
}

TEST(SweepPoints, ContradictionsAreThePointsOwn) {
  const auto all = points("flags: {gpu-batch-size: 4}\naxes: {block: [2x2, wide]}\n");
  ASSERT_EQ(all.size(), 2U);
  EXPECT_THAT(all[0].problem, HasSubstr("contradict"));
  EXPECT_THAT(points("flags: {block: wide}\n")[0].problem, HasSubstr("'wide' is no shape"));
}

TEST(SweepPoints, ADrawIsTheSameEverywhereAndStatedPointsAreTaken) {
  EXPECT_THAT(draw(10, 3, 7), ElementsAre(0, 4, 7));
  EXPECT_EQ(draw(5, 5, 1), (std::vector<std::int64_t>{0, 1, 2, 3, 4}));
  const std::string yaml =
      "sample: 3\nseed: 7\naxes: {gen-len: [0,1,2,3,4,5,6,7,8,9]}\npoints: [{gen-len: 99}]\n";
  const auto drawn = points(yaml);
  ASSERT_EQ(drawn.size(), 4U);
  EXPECT_EQ(drawn[0].value("gen-len"), "99") << "points come first";
  EXPECT_EQ(drawn[2].value("gen-len"), "4");
  PointOptions other;
  other.seed = 8;
  EXPECT_NE(points(yaml, other)[1].id + points(yaml, other)[2].id, drawn[1].id + drawn[2].id);
  other.sample = 0;
  EXPECT_EQ(points(yaml, other).size(), 11U);
}

TEST(SweepPoints, TooManyAreRefused) {
  std::string yaml = "axes:\n";
  const std::string values = "[0,1,2,3,4,5,6,7,8,9]\n";
  for (const char* axis : {"gen-len", "prompt-len", "num-requests", "threads", "prefetch-depth", "seed"})
    yaml += fmt::format("  {}: {}", axis, values);
  try {
    points(yaml);
    FAIL();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("1000000 combinations, at most 100000"));
  }
}

TEST(ShippedSweeps, CanBeReadAndTheirPointsContradictNothing) {
  const std::vector<std::string> names = builtin_sweep_names();
  EXPECT_THAT(names, ::testing::IsSupersetOf({"opt-flexgen-t4", "opt-ablation-t4", "gpu-memory"}));
  for (const std::string& name : names) {
    const std::vector<SweepFile> files = {load_sweep(name)};
    EXPECT_FALSE(files[0].description.empty()) << name;
    const auto all = points_of(files);
    EXPECT_FALSE(all.empty()) << name;
    for (const SweepPoint& point : all) EXPECT_EQ(point.problem, "") << name << ": " << point.what;
  }
}

// ---- Through the command line.

constexpr const char* kSmall = R"(title: Small
description: Quick ones.
hardware: [laptop-8gb]
flags: {model: "random:opt-1.3b", prompt-len: 64, gen-len: 8, num-requests: 8}
axes:
  gpu-memory: [1GiB, 4GiB]
  percent: [100 0 100 0 100 0, 0 100 0 100 100 0]
points:
  - {label: planned, gpu-memory: 2GiB, block: 4x1}
  - {label: sums, percent: 90 20 0 100 0 100}
)";

struct Simulated {
  Outcome outcome;
  std::vector<json> lines;
};

Simulated simulate(const TempDir& dir, const std::string& yaml, std::vector<std::string> more = {}) {
  write_text(dir / "small.yaml", yaml);
  std::vector<std::string> words = {"sweep", dir / "small.yaml", "--simulate", "--output", dir / "out.jsonl"};
  words.insert(words.end(), more.begin(), more.end());
  Simulated result{run(words), {}};
  result.lines = lines_of(dir / "out.jsonl");
  return result;
}

json line_of(const Simulated& sweep, std::int64_t number) {
  for (const json& line : sweep.lines) {
    if (line.value("number", std::int64_t{-1}) == number) return line;
  }
  ADD_FAILURE() << "no point " << number;
  return {};
}

TEST(SweepCommand, PredictsEveryPoint) {
  const TempDir dir;
  const Simulated sweep = simulate(dir, kSmall);
  EXPECT_EQ(sweep.outcome.status, 0) << sweep.outcome.err;
  ASSERT_EQ(sweep.lines.size(), 7U);
  EXPECT_EQ(sweep.lines[0]["kind"], "sweep");
  EXPECT_EQ(sweep.lines[0]["points"], 6);
  EXPECT_EQ(sweep.lines[0]["mode"], "simulate");

  const json refused = line_of(sweep, 2);
  EXPECT_EQ(refused["status"], "refused") << "2.5 GiB of weights in 1 GiB";
  EXPECT_EQ(refused["code"], "out_of_memory");
  EXPECT_THAT(
      refused["message"].get<std::string>(),
      HasSubstr("of gpu memory more than the 960.00 MiB there are beside the 64.00 MiB of library kernels"));

  const json resident = line_of(sweep, 4);
  EXPECT_EQ(resident["status"], "ok");
  EXPECT_EQ(resident["placement"]["gpu_batch_size"], 4) << "what generate takes without a size";
  EXPECT_EQ(resident["predicted"]["passes"], 16) << "two blocks of eight passes";
  EXPECT_NEAR(resident["predicted"]["latency_sec"].get<double>(),
              resident["predicted"]["total_sec"].get<double>() / 2, 1e-9);
  EXPECT_GT(resident["predicted"]["memory_bytes"]["gpu"].get<std::int64_t>(), 2'000'000'000);
  EXPECT_FALSE(resident["predicted"]["lanes"].empty());

  const json planned = line_of(sweep, 0);
  EXPECT_EQ(planned["label"], "planned");
  EXPECT_EQ(planned["placement"]["gpu_batch_size"], 4);
  EXPECT_LE(planned["predicted"]["memory_bytes"]["gpu"].get<std::int64_t>(), std::int64_t{2} << 30);

  const json contradicts = line_of(sweep, 1);
  EXPECT_EQ(contradicts["status"], "refused");
  EXPECT_EQ(contradicts["code"], "invalid_argument");
  EXPECT_THAT(sweep.outcome.err, HasSubstr("6 points: 4 ok, 2 refused, 0 failed"));
}

TEST(SweepCommand, SaysWhatCannotBe) {
  const TempDir dir;
  write_text(dir / "none.yaml", "flags: {model: \"random:opt-125m\"}\n");
  write_text(dir / "two.yaml", "hardware: [laptop-8gb, t4-208gb]\nflags: {model: \"random:opt-125m\"}\n");
  write_text(dir / "pin.yaml",
             "hardware: [laptop-8gb]\nflags: {model: \"random:opt-125m\", pin-weight: 0}\n");
  write_text(dir / "few.yaml", "hardware: [laptop-8gb]\nflags: {model: \"random:opt-125m\", threads: 1}\n");
  write_text(dir / "nomodel.yaml", "hardware: [laptop-8gb]\nflags: {model: \"random:opt-126m\"}\n");
  struct Case {
    std::vector<std::string> words;
    Code code;
    std::string message;
  };
  const std::vector<Case> cases = {
      {{"sweep"}, Code::kInvalidArgument, "gpu-memory"},
      {{"sweep", "gpu-memry", "--simulate"}, Code::kNotFound, "did you mean 'gpu-memory'"},
      {{"sweep", dir / "none.yaml", "--simulate"}, Code::kInvalidArgument, "needs a hardware profile"},
      {{"sweep", dir / "none.yaml", "--simulate", "--hardware", "laptop-9gb"}, Code::kNotFound, "laptop-8gb"},
      {{"sweep", dir / "two.yaml"},
       Code::kInvalidArgument,
       "has one machine, and these are laptop-8gb, t4-208gb"},
      {{"sweep", dir / "pin.yaml", "--simulate"}, Code::kInvalidArgument, "pin-weight: 0 is not predicted"},
      {{"sweep", dir / "few.yaml", "--simulate"},
       Code::kInvalidArgument,
       "the profile measured attention with"},
      {{"sweep", dir / "nomodel.yaml", "--simulate"}, Code::kInternal, "did you mean 'opt-125m'"},
      {{"sweep", dir / "two.yaml", "--simulate", "--resume"}, Code::kInvalidArgument, "standard output"},
      {{"sweep", dir / "two.yaml", "--report-only", dir / "x"},
       Code::kInvalidArgument,
       "leave one of them out"},
      {{"sweep", "--report-only", dir / "x"}, Code::kNotFound, "x"},
      {{"sweep", "--report-only", dir / "two.yaml"}, Code::kCorrupt, "two.yaml:1: is not the first line"},
      {{"sweep", dir / "two.yaml", "--set", "colour=red"}, Code::kInvalidArgument, "colour=red"},
  };
  for (const Case& each : cases) {
    const Outcome outcome = run(each.words);
    EXPECT_EQ(outcome.status, exit_status(each.code)) << each.message << ": " << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr(each.message));
  }
}

TEST(SweepCommand, GoesOnWhereItWasKilled) {
  const TempDir dir;
  const Simulated whole = simulate(dir, kSmall, {"--jobs", "1"});
  ASSERT_EQ(whole.outcome.status, 0);
  const std::string text = read_text(dir / "out.jsonl");
  // Killed while it wrote the fourth line.
  std::size_t end = 0;
  for (int i = 0; i < 3; ++i) end = text.find('\n', end) + 1;
  write_text(dir / "out.jsonl", text.substr(0, end + 100));

  const Outcome unfinished = run({"sweep", dir / "small.yaml", "--simulate", "--output", dir / "out.jsonl"});
  EXPECT_EQ(unfinished.status, exit_status(Code::kInvalidArgument));
  EXPECT_THAT(unfinished.err, HasSubstr("2 of 6 points of an unfinished sweep"));

  const Simulated resumed = simulate(dir, kSmall, {"--resume", "--jobs", "1"});
  EXPECT_EQ(resumed.outcome.status, 0) << resumed.outcome.err;
  EXPECT_THAT(resumed.outcome.err, HasSubstr("2 of 6 points are done"));
  EXPECT_EQ(read_text(dir / "out.jsonl"), text);

  const Outcome other = run({"sweep", dir / "small.yaml", "--simulate", "--output", dir / "out.jsonl",
                             "--resume", "--set", "gen-len=9"});
  EXPECT_EQ(other.status, exit_status(Code::kInvalidArgument));
  EXPECT_THAT(other.err, HasSubstr("of another sweep: points_hash was"));
  EXPECT_EQ(read_text(dir / "out.jsonl"), text) << "untouched";
}

TEST(SweepCommand, TriesFailedPointsAgainAndTheLastLineCounts) {
  const TempDir dir;
  ASSERT_EQ(simulate(dir, kSmall).outcome.status, 0);
  std::string text;
  for (json line : lines_of(dir / "out.jsonl")) {
    if (line.value("number", -1) == 4) line["status"] = "failed";
    text += line.dump() + "\n";
  }
  write_text(dir / "out.jsonl", text);
  const Simulated resumed = simulate(dir, kSmall, {"--resume"});
  EXPECT_EQ(resumed.outcome.status, 0) << resumed.outcome.err;
  EXPECT_EQ(resumed.lines.size(), 8U);
  EXPECT_EQ(resumed.lines.back()["number"], 4);
  const SweepResults results = read_sweep_results(dir / "out.jsonl");
  ASSERT_EQ(results.lines.size(), 6U);
  EXPECT_EQ(results.lines[4]["status"], "ok");
}

TEST(SweepCommand, AFileThatIsNoSweepsIsRefused) {
  const TempDir dir;
  write_text(dir / "small.yaml", kSmall);
  const std::vector<std::string> words = {"sweep", dir / "small.yaml", "--simulate", "--output",
                                          dir / "out.jsonl"};
  write_text(dir / "out.jsonl", "notes of mine\n");
  EXPECT_EQ(run(words).status, exit_status(Code::kCorrupt));
  EXPECT_EQ(read_text(dir / "out.jsonl"), "notes of mine\n");
  for (const char* other : {"notes of mine", "{\"kind\": \"swe", "{\"kind\": 1}\n"}) {
    write_text(dir / "out.jsonl", other);
    EXPECT_EQ(run(words).status, exit_status(Code::kCorrupt)) << other;
    EXPECT_EQ(read_text(dir / "out.jsonl"), other);
  }
  write_text(dir / "out.jsonl", "{\"kind\":\"swe");
  EXPECT_EQ(run(words).status, 0) << "a sweep that was killed in its first line";
  write_text(dir / "out.jsonl", "{\"kind\": \"sweep\", \"points\": 1}\n{\"kind\": \"point\"}\n");
  const Outcome outcome = run(words);
  EXPECT_EQ(outcome.status, exit_status(Code::kCorrupt));
  EXPECT_THAT(outcome.err, HasSubstr("out.jsonl:2: is no result of a point"));
}

TEST(SweepCommand, ThreadsLimitThePredictedAttention) {
  const TempDir dir;
  const Simulated sweep = simulate(dir, R"(description: x
hardware: [h200-141gb]
flags: {model: "random:opt-1.3b", prompt-len: 512, gen-len: 8, percent: 100 0 0 100 100 0, block: 32x1,
        cpu-cache-compute: true}
axes: {threads: [3, 15]}
)");
  ASSERT_EQ(sweep.outcome.status, 0) << sweep.outcome.err;
  EXPECT_GT(line_of(sweep, 1)["predicted"]["tokens_per_sec"].get<double>(),
            2 * line_of(sweep, 0)["predicted"]["tokens_per_sec"].get<double>());
}

TEST(SweepCommand, TheSwitchOfPrefetchIsAnAxis) {
  const TempDir dir;
  const Simulated sweep = simulate(dir, R"(description: x
hardware: [h200-141gb]
flags: {model: "random:opt-1.3b", prompt-len: 64, gen-len: 8, percent: 0 100 100 0 100 0, block: 32x1}
axes: {no-prefetch: [false, true]}
)");
  ASSERT_EQ(sweep.outcome.status, 0) << sweep.outcome.err;
  const json with = line_of(sweep, 0);
  const json without = line_of(sweep, 1);
  EXPECT_EQ(with["placement"]["prefetch"], true);
  EXPECT_EQ(without["placement"]["prefetch"], false);
  EXPECT_THAT(without["placement_flags"].get<std::string>(), HasSubstr("--no-prefetch"));
  EXPECT_LT(without["predicted"]["tokens_per_sec"].get<double>(),
            with["predicted"]["tokens_per_sec"].get<double>());
}

// ---- The report.

TEST(SweepReport, IsOnePageWithItsDataAndNoNetwork) {
  const TempDir dir;
  std::string yaml(kSmall);
  yaml.replace(0, std::string("title: Small").size(), "title: \"A </script><b> & <!--title--> /*data*/\"");
  const Simulated sweep = simulate(dir, yaml, {"--report", dir / "out.html"});
  ASSERT_EQ(sweep.outcome.status, 0) << sweep.outcome.err;
  const std::string page = read_text(dir / "out.html");
  EXPECT_THAT(page, HasSubstr("<title>A &lt;/script&gt;&lt;b&gt; &amp; &lt;!--title--&gt; /*data*/</title>"));
  EXPECT_THAT(page, AllOf(HasSubstr("Chart.js v3"), HasSubstr("Released under the MIT License")));
  EXPECT_THAT(page, Not(HasSubstr("src=\"http")));
  EXPECT_THAT(page, Not(HasSubstr("<link")));
  const std::string open = "<script type=\"application/json\" id=\"data\">";
  const std::size_t begin = page.find(open) + open.size();
  const json data = json::parse(page.substr(begin, page.find("</script>", begin) - begin));
  EXPECT_EQ(data["points"].size(), 6U);
  EXPECT_EQ(data["sweep"]["title"], "A </script><b> & <!--title--> /*data*/");

  const Outcome again = run({"sweep", "--report-only", dir / "out.jsonl", "--report", dir / "again.html"});
  EXPECT_EQ(again.status, 0) << again.err;
  EXPECT_EQ(read_text(dir / "again.html"), page);
}

}  // namespace
}  // namespace sluice::apps
