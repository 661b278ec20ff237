#include "tests/fuzz/mutator.h"

#include <set>
#include <string>

#include <gtest/gtest.h>

#include "core/error.h"

namespace sluice::fuzz {
namespace {

TEST(Mutator, GivesTheSameInputsForTheSameSeed) {
  const std::vector<Bytes> corpus = {{'{', '1', '2', '}'}, {}, Bytes(100, 7)};
  Mutator a(5, 256, {{'k', 'e', 'y'}}), b(5, 256, {{'k', 'e', 'y'}}), c(6, 256, {{'k', 'e', 'y'}});
  int different = 0;
  for (int i = 0; i < 2000; ++i) {
    const Bytes input = a.next(corpus);
    ASSERT_EQ(input, b.next(corpus)) << i;
    different += input != c.next(corpus);
  }
  EXPECT_GT(different, 1000);
}

TEST(Mutator, StaysWithinTheBoundAndKeepsFindingNewInputs) {
  const std::vector<Bytes> corpus = {Bytes(64, 'a')};
  Mutator mutator(1, 64, {});
  std::set<std::string> seen;
  for (int i = 0; i < 5000; ++i) {
    const Bytes input = mutator.next(corpus);
    ASSERT_LE(input.size(), 64U);
    seen.emplace(input.begin(), input.end());
  }
  EXPECT_GT(seen.size(), 3000U);
}

TEST(Dictionary, ReadsNamesEscapesAndComments) {
  const std::vector<Bytes> tokens = parse_dictionary("# tokens\nkw=\"PK\\x03\\x04\"\n\n\"a\\\"b\\\\\"\n");
  ASSERT_EQ(tokens.size(), 2U);
  EXPECT_EQ(tokens[0], (Bytes{'P', 'K', 3, 4}));
  EXPECT_EQ(tokens[1], (Bytes{'a', '"', 'b', '\\'}));
}

TEST(Dictionary, NamesTheLineItCannotRead) {
  for (const char* bad : {"ok=\"a\"\nkw=", "ok=\"a\"\n\"\\q\"", "ok=\"a\"\n\"\\xZZ\"", "ok=\"a\"\nx\""}) {
    try {
      parse_dictionary(bad);
      FAIL() << bad;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("line 2"), std::string::npos) << e.what();
    }
  }
}

}  // namespace
}  // namespace sluice::fuzz
