// What rounds of measurement say. Pure.
#pragma once

#include <span>
#include <vector>

namespace sluice::apps {

/// The median of a few rounds, and half of highest - lowest in percent of it.
struct Measured {
  double median = 0, spread_percent = 0;
};
/// `values` is not empty.
Measured median_of(std::vector<double> values);

/// Of several positive figures that each round measured, `values[figure][round]`, at least one of each: what
/// slows a whole round slows all alike and says nothing of how they compare. A figure is its median share of
/// the rounds' geometric means, times the median of those; the spread is that of the values as they are.
std::vector<Measured> compare_rounds(std::span<const std::vector<double>> values);

}  // namespace sluice::apps
