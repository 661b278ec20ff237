// What a piece of code throws, for tests of messages and codes.
#pragma once

#include <gtest/gtest.h>

#include "core/error.h"

namespace sluice::testing {

/// The Error that `body` throws; fails the test if it throws none.
template <class Body>
Error error_of(const Body& body) {
  try {
    body();
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "no Error was thrown";
  return {Code::kOk, ""};
}

}  // namespace sluice::testing
