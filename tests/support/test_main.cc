// The main() of every test program. Exit status 77 says that a test was skipped and none failed; CTest then
// reports the program as skipped. A program without tests, or whose filter leaves none, fails. A developer's
// own hardware profile is out of reach of the tests and of the programs that they start.
#include <cstdio>
#include <cstdlib>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

int main(int argc, char** argv) {
  setenv("XDG_CONFIG_HOME", "/dev/null", 1);  // NOLINT(concurrency-mt-unsafe): no other thread yet
  testing::InitGoogleMock(&argc, argv);
  const int result = RUN_ALL_TESTS();
  if (result != 0 || testing::GTEST_FLAG(list_tests)) return result;
  const testing::UnitTest& tests = *testing::UnitTest::GetInstance();
  if (tests.test_to_run_count() == 0) {
    std::fputs("no test was run\n", stderr);
    return 1;
  }
  return tests.skipped_test_count() > 0 ? 77 : 0;
}
