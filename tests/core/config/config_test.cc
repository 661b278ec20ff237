#include "core/config/config.h"

#include <filesystem>
#include <fstream>
#include <random>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/config/yaml.h"
#include "core/error.h"
#include "tests/core/config/sample_config.h"

namespace sluice::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Sample parse(std::string_view text, const std::vector<std::string>& overrides = {}) {
  Sample config;
  apply_config(config, text, "run.yaml", overrides);
  return config;
}

/// The message with which `text` is refused, one problem a line.
std::vector<std::string> problems(std::string_view text, const std::vector<std::string>& overrides = {}) {
  try {
    parse(text, overrides);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kInvalidArgument);
    std::vector<std::string> lines;
    std::istringstream in(e.what());
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    return lines;
  }
  return {};
}

TEST(Config, AnEmptyFileKeepsTheDefaults) {
  EXPECT_EQ(parse(""), Sample{});
  EXPECT_EQ(parse("# nothing\n"), Sample{});
  EXPECT_EQ(parse("cache:\n"), Sample{});
}

TEST(Config, ReadsEveryKindOfField) {
  const Sample config = parse(R"(
name: "a: b"
verbose: true
count: 100
small: 255
seed: 18446744073709551615
scale: -2.5e-3
lengths: [4, 5, 6]
stops:
  - "\n"
  - end
policies: [fifo, lru]
flags: [true, false]
cache: {pinned_gib: 0.5, threads: 8, policy: fifo}
second:
  pinned_gib: 2
more:
  - threads: 1
  - {}
)");
  Sample expected;
  expected.name = "a: b";
  expected.verbose = true;
  expected.count = 100;
  expected.small = 255;
  expected.seed = 18446744073709551615U;
  expected.scale = -2.5e-3F;
  expected.lengths = {4, 5, 6};
  expected.stops = {"\n", "end"};
  expected.policies = {Policy::kFifo, Policy::kLru};
  expected.flags = {true, false};
  expected.cache = {0.5, 8, Policy::kFifo};
  expected.second = Cache{2, std::nullopt, Policy::kLru};
  expected.more = {Cache{4, 1, Policy::kLru}, Cache{}};
  EXPECT_EQ(config, expected);
}

TEST(Config, NullEmptiesAnOptional) {
  Sample config = parse("cache: {threads: 4}\nsecond: {}\n");
  EXPECT_EQ(config.cache.threads, 4);
  EXPECT_TRUE(config.second.has_value());
  apply_config(config, "cache: {threads: null}\nsecond: ~\n", "run.yaml");
  EXPECT_EQ(config.cache.threads, std::nullopt);
  EXPECT_EQ(config.second, std::nullopt);
}

TEST(Config, ReportsAllProblemsWithLinesAndRemedies) {
  EXPECT_THAT(
      problems("name: [x]\n"
               "verbos: true\n"
               "count: 101\n"
               "cache:\n"
               "  pinned_gib: 0\n"
               "  polcy: lru\n"
               "  policy: lfu\n"
               "lengths: 3\n"
               "scale: fast\n"),
      ElementsAre("run.yaml:1: name: a list is not a text; write one text; \"\" is the empty one",
                  "run.yaml:2: verbos: unknown key; did you mean 'verbose'?",
                  "run.yaml:3: count: '101' is out of range; write a whole number from 0 to 100",
                  "run.yaml:5: cache.pinned_gib: '0' is out of range; write a number above 0 and at most 512",
                  "run.yaml:6: cache.polcy: unknown key; did you mean 'policy'?",
                  "run.yaml:7: cache.policy: 'lfu' is not one of the names; did you mean 'lru'?",
                  "run.yaml:8: lengths: '3' is not a list; write [a, b], or one '- a' a line",
                  "run.yaml:9: scale: 'fast' is not a number; write a number"));
}

TEST(Config, ListsTheKnownNamesWhereNoneIsNear) {
  EXPECT_THAT(
      problems("cache: {policy: whatever_else}"),
      ElementsAre("run.yaml:1: cache.policy: 'whatever_else' is not one of the names; known: lru, fifo"));
  EXPECT_THAT(problems("cache: {zzzzzzzz: 1}"),
              ElementsAre("run.yaml:1: cache.zzzzzzzz: unknown key; known: pinned_gib, threads, policy"));
}

TEST(Config, NamesTheElementOfAList) {
  EXPECT_THAT(
      problems("lengths: [1, x, -1]\nmore:\n  - threads: 0\n  - thread: 1\n"),
      ElementsAre("run.yaml:1: lengths[1]: 'x' is not a whole number; write a whole number of at least 0",
                  "run.yaml:1: lengths[2]: '-1' is out of range; write a whole number of at least 0",
                  "run.yaml:3: more[0].threads: '0' is out of range; write a whole number of at least 1",
                  "run.yaml:4: more[1].thread: unknown key; did you mean 'threads'?"));
}

TEST(Config, MessagesStayInOneLineWhateverTheFileHolds) {
  EXPECT_THAT(
      problems("\"a\\nb\": 1\ncount: \"\\e[31m'\""),
      ElementsAre(
          "run.yaml:1: a\\x0Ab: unknown key; known: name, verbose, count, small, seed, scale, lengths, "
          "stops, policies, flags, cache, second, more",
          "run.yaml:2: count: '\\x1B[31m\\x27' is not a whole number; write a whole number from 0 to 100"));
}

TEST(Config, RefusesValuesOfTheWrongType) {
  for (const char* text : {"verbose: yes",
                           "verbose: 1",
                           "verbose: \"true\"",
                           "count: 1.5",
                           "count: \"3\"",
                           "count: 0x10",
                           "count:",
                           "small: 256",
                           "small: -1",
                           "seed: -1",
                           "seed: 18446744073709551616",
                           "scale: .nan",
                           "scale: inf",
                           "scale: 1e99",
                           "name:",
                           "name: {a: b}",
                           "cache: 3",
                           "cache: [1]",
                           "stops: [[a]]",
                           "lengths: [3000000000]",
                           "flags: [2]",
                           "cache: {policy: [lru]}",
                           "count: +-3",
                           "[1]",
                           "3"}) {
    EXPECT_EQ(problems(text).size(), 1U) << text;
  }
}

TEST(Config, AProblemLeavesNothingHalfRead) {
  Sample config;
  EXPECT_THROW(apply_config(config, "lengths: [9, x]\ncount: 500", "run.yaml"), Error);
  EXPECT_EQ(config, Sample{});
}

TEST(Config, RefusesBrokenYamlWithItsLine) {
  EXPECT_THAT(problems("count: 1\nname: [a\ncount: 2"), ElementsAre(HasSubstr("run.yaml:")));
  EXPECT_THAT(problems("count: 1\ncount: 2\n"),
              ElementsAre("run.yaml:2: count: the key stands here twice; remove one of them"));
  EXPECT_THAT(problems("a: &x 1\nb: *x\n"), ElementsAre("run.yaml:2: an alias (*name); write the value out"));
  EXPECT_THAT(problems("count: !!int 3\n"),
              ElementsAre(HasSubstr("run.yaml:1: the tag 'tag:yaml.org,2002:int'; remove it")));
  EXPECT_THAT(problems("cache: !x {}\n"), ElementsAre(HasSubstr("run.yaml:1: the tag '!x'")));
  EXPECT_THAT(problems("count: 1\n---\ncount: 2\n"), ElementsAre(HasSubstr("a second document")));
  EXPECT_THAT(problems("{[a]: 1}"), ElementsAre(HasSubstr("a key that is no text")));
  EXPECT_THAT(problems("count: 1\nname: \xFF\n"),
              ElementsAre("run.yaml:2: byte 15 is not UTF-8 text; save the file as UTF-8"));
  EXPECT_THAT(problems(std::string(1, '\0')), ElementsAre(HasSubstr("run.yaml:1: byte 0 is not UTF-8 text")));
  EXPECT_THAT(problems(std::string(100, '[')),
              ElementsAre(HasSubstr("run.yaml:1: nested deeper than 64 levels")));
  EXPECT_THAT(problems(std::string(2 << 20, '#')), ElementsAre(HasSubstr("2097152 bytes of configuration")));
}

TEST(Config, OverridesComeAfterTheFile) {
  const Sample config =
      parse("count: 5\ncache: {pinned_gib: 1, policy: fifo}",
            {"count=6", "cache.pinned_gib=2", "lengths=[7, 8]", "name=a=b", "second.threads=3",
             "second.policy=fifo", "stops=[\"x y\"]", "cache.threads=null"});
  EXPECT_EQ(config.count, 6);
  EXPECT_EQ(config.cache, (Cache{2, std::nullopt, Policy::kFifo}));
  EXPECT_EQ(config.lengths, (std::vector<std::int32_t>{7, 8}));
  EXPECT_EQ(config.name, "a=b");
  EXPECT_EQ(config.second, (Cache{4, 3, Policy::kFifo}));
  EXPECT_EQ(config.stops, std::vector<std::string>{"x y"});
}

TEST(Config, OverridesAreNamedInTheirProblems) {
  EXPECT_THAT(
      problems("cuont: 1",
               {"count=-1", "cache.polic=lru", "novalue", "=3", "a..b=1", ".a=1", "name=[", "count"}),
      ElementsAre("run.yaml:1: cuont: unknown key; did you mean 'count'?",
                  "--set count=-1: count: '-1' is out of range; write a whole number from 0 to 100",
                  "--set cache.polic=lru: cache.polic: unknown key; did you mean 'policy'?",
                  "--set novalue: not an assignment; write --set key=value, or --set key.inner_key=value",
                  "--set =3: not an assignment; write --set key=value, or --set key.inner_key=value",
                  "--set a..b=1: not an assignment; write --set key=value, or --set key.inner_key=value",
                  "--set .a=1: not an assignment; write --set key=value, or --set key.inner_key=value",
                  "--set name=[:1: end of sequence flow not found; mend the YAML there",
                  "--set count: not an assignment; write --set key=value, or --set key.inner_key=value"));
  Sample config;
  apply_overrides(config, std::vector<std::string>{"count=9"});
  EXPECT_EQ(config.count, 9);
}

TEST(Config, LoadsFilesAndSaysWhichIsMissing) {
  const auto path = std::filesystem::temp_directory_path() / fmt::format("sluice_config_{}.yaml", getpid());
  try {
    load_config<Sample>(path);
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kNotFound);
    EXPECT_THAT(e.what(), HasSubstr(path.string()));
  }
  std::ofstream(path) << "count: 8\n";
  EXPECT_EQ(load_config<Sample>(path, std::vector<std::string>{"small=1"}).count, 8);
  std::filesystem::remove(path);
}

Sample random_sample(std::mt19937& rng) {
  const auto text = [&] {
    static const std::vector<std::string> texts = {
        "",     "plain",  "true", "null",  "~",     "12",         "1e5",  "a: b", "# no",   "- x",
        "'q'",  "\"dq\"", "\n",   "tab\t", " lead", "\u00E9",     "[x",   "{y",   "*alias", "&an",
        "!tag", "%pct",   "@at",  "`bt",   "\\",    "\u20AC\n\n", "key:", "\x01"};
    return texts[rng() % texts.size()];
  };
  const auto cache = [&] {
    Cache c;
    c.pinned_gib = std::uniform_real_distribution<double>(1e-300, 512)(rng);
    if (rng() % 2 == 0) c.threads = static_cast<std::int32_t>(1 + rng() % 100);
    c.policy = rng() % 2 == 0 ? Policy::kLru : Policy::kFifo;
    return c;
  };
  Sample s;
  s.name = text();
  s.verbose = rng() % 2 == 0;
  s.count = static_cast<std::int64_t>(rng() % 101);
  s.small = static_cast<std::uint8_t>(rng());
  s.seed = (static_cast<std::uint64_t>(rng()) << 32) | rng();
  s.scale = std::bit_cast<float>(static_cast<std::uint32_t>(rng()) & 0xBF7FFFFFU);  // any finite float
  s.lengths.assign(rng() % 4, static_cast<std::int32_t>(rng() % 1000));
  for (std::size_t i = rng() % 4; i > 0; --i) s.stops.push_back(text());
  s.policies.assign(rng() % 3, Policy::kFifo);
  s.flags.assign(rng() % 3, true);
  s.cache = cache();
  if (rng() % 2 == 0) s.second = cache();
  for (std::size_t i = rng() % 3; i > 0; --i) s.more.push_back(cache());
  return s;
}

TEST(Config, PrintedConfigReadsBackEqual) {
  EXPECT_EQ(parse(print_config(Sample{})), Sample{});
  for (std::uint32_t seed = 0; seed < 500; ++seed) {
    std::mt19937 rng(seed);
    const Sample sample = random_sample(rng);
    const std::string text = print_config(sample);
    ASSERT_EQ(parse(text), sample) << "seed " << seed << "\n" << text;
  }
}

TEST(Config, PrintsHelpAsComments) {
  const std::string text = print_config(Sample{});
  EXPECT_THAT(text, HasSubstr("count: 3  # how many\n"));
  EXPECT_THAT(text, HasSubstr("cache:  # the first cache\n  pinned_gib: 4  # pinned memory in GiB\n"));
  EXPECT_THAT(text, HasSubstr("lengths: [1, 2]"));
  EXPECT_THAT(text, HasSubstr("second: ~"));
}

TEST(Config, HelpNamesEveryField) {
  const std::vector<ConfigField> fields = config_fields<Sample>();
  ASSERT_EQ(fields.size(), 15U);
  EXPECT_EQ(fields[2].key, "count");
  EXPECT_EQ(fields[2].type, "whole number from 0 to 100");
  EXPECT_EQ(fields[2].default_value, "3");
  EXPECT_EQ(fields[11].key, "cache.threads");
  EXPECT_EQ(fields[11].type, "whole number of at least 1, or null");
  EXPECT_EQ(fields[12].type, "one of lru, fifo");
  EXPECT_EQ(fields[14].default_value, "[]");
  EXPECT_THAT(config_help<Sample>(),
              HasSubstr("cache.pinned_gib  pinned memory in GiB (number above 0 and at most 512; "
                        "default 4)\n"));
}

TEST(EditDistance, CountsEditsAndSwaps) {
  EXPECT_EQ(edit_distance("", "abc"), 3U);
  EXPECT_EQ(edit_distance("abc", ""), 3U);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3U);
  EXPECT_EQ(edit_distance("precent", "percent"), 1U);
  EXPECT_EQ(edit_distance("same", "same"), 0U);
  const std::vector<std::string_view> known = {"alpha", "beta"};
  EXPECT_EQ(nearest_name("betta", known), "beta");
  EXPECT_EQ(nearest_name("gamma_ray", known), "");
  EXPECT_EQ(nearest_name(std::string(10000, 'b'), known), "");
}

}  // namespace
}  // namespace sluice::testing
