#include "apps/profile/rounds.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace sluice::apps {

Measured median_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const double median = values[values.size() / 2];
  return {median, median > 0 ? 50 * (values.back() - values.front()) / median : 0};
}

std::vector<Measured> compare_rounds(std::span<const std::vector<double>> values) {
  std::vector<double> means(values.front().size());
  for (std::size_t round = 0; round < means.size(); ++round) {
    double sum = 0;
    for (const std::vector<double>& of_one : values) sum += std::log(of_one[round]);
    means[round] = std::exp(sum / static_cast<double>(values.size()));
  }
  const double usual = median_of(means).median;
  std::vector<Measured> measured;
  for (const std::vector<double>& of_one : values) {
    std::vector<double> shares;
    for (std::size_t round = 0; round < means.size(); ++round) shares.push_back(of_one[round] / means[round]);
    measured.push_back({usual * median_of(shares).median, median_of(of_one).spread_percent});
  }
  return measured;
}

}  // namespace sluice::apps
