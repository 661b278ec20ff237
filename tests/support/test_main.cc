// The main() of every test program. Exit status 77 says that a test was skipped and none failed; CTest then
// reports the program as skipped. A program without tests, or whose filter leaves none, fails.
#include <cstdio>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

int main(int argc, char** argv) {
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
