#include "apps/spmm_report.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <set>

#include <fmt/format.h>

namespace sluice::apps {
namespace {

double share_of_roofline(const SpmmRow& row, const kernels::SpmmDeviceRates& rates) {
  return floor_sec(row, rates) / row.timing.sec;
}

/// Values of a table of geometric means: by line, and in it by sparsity.
class Means {
 public:
  void add(const std::string& line, double sparsity, double value) {
    logs_[line][sparsity].push_back(std::log(value));
    if (std::ranges::find(order_, line) == order_.end()) order_.push_back(line);
  }
  std::string text(const std::string& title, const char* number, std::size_t num_shapes) const {
    if (order_.empty()) return {};
    std::set<double> columns;
    for (const auto& [line, cells] : logs_) {
      for (const auto& [sparsity, values] : cells) columns.insert(sparsity);
    }
    std::string text = fmt::format("\n{:<36}", title);
    for (const double sparsity : columns)
      text += sparsity == 0 ? fmt::format("{:>11}", "dense") : fmt::format("{:>11.2f}", sparsity);
    text += '\n';
    for (const std::string& line : order_) {
      text += fmt::format("{:<36}", line);
      const auto& cells = logs_.at(line);
      for (const double sparsity : columns) {
        const auto found = cells.find(sparsity);
        std::string cell = "-";
        if (found != cells.end()) {
          const std::vector<double>& values = found->second;
          double sum = 0;
          for (const double value : values) sum += value;
          cell = fmt::format(fmt::runtime(number), std::exp(sum / static_cast<double>(values.size())));
          if (values.size() < num_shapes) cell += fmt::format(" of {}", values.size());
        }
        text += fmt::format("{:>11}", cell);
      }
      text += '\n';
    }
    return text;
  }

 private:
  std::map<std::string, std::map<double, std::vector<double>>> logs_;
  std::vector<std::string> order_;
};

std::string product_text(const SpmmRow& row) {
  return row.kind == SpmmKind::kFused || row.kind == SpmmKind::kPeer
             ? row.product
             : fmt::format("{} {}", row.format, row.product);
}

std::string line_of(const SpmmRow& row) {
  if (row.kind == SpmmKind::kExpansion) return product_text(row);
  return fmt::format("{}, N {}", product_text(row), row.n);
}

/// Per n, sparsity and shape the fastest fused product of a lossless format.
std::vector<SpmmRow> best_fused(const std::vector<SpmmRow>& rows) {
  std::map<std::tuple<std::int64_t, double, std::int64_t, std::int64_t>, SpmmRow> best;
  for (const SpmmRow& row : rows) {
    if (row.kind != SpmmKind::kFused || !row.lossless || !row.measured() || !row.right()) continue;
    SpmmRow candidate = row;
    candidate.product = "best fused";
    const auto [entry, is_new] =
        best.try_emplace({row.n, row.sparsity, row.shape.rows, row.shape.cols}, candidate);
    if (!is_new && row.timing.sec < entry->second.timing.sec) entry->second = candidate;
  }
  std::vector<SpmmRow> found;
  for (auto& [key, row] : best) found.push_back(std::move(row));
  return found;
}

}  // namespace

double moved_bytes(const SpmmRow& row) {
  const auto [m, k] = row.shape;
  if (row.kind == SpmmKind::kExpansion) return static_cast<double>(row.stored_bytes + 2 * m * k);
  return static_cast<double>(row.stored_bytes + 2 * row.n * (m + k));
}

double floor_sec(const SpmmRow& row, const kernels::SpmmDeviceRates& rates) {
  const double flops = 2.0 * static_cast<double>(row.shape.rows * row.shape.cols * row.n);
  return std::max(moved_bytes(row) / rates.copy_bytes_per_sec, flops / rates.product_flops_per_sec);
}

std::string shape_text(const kernels::SpmmShape& shape) {
  return fmt::format("{}x{}", shape.rows, shape.cols);
}

std::string table_head() {
  return fmt::format("{:<12} {:>4} {:>8} {:<12} {:<24} {:>9} {:>17} {:>7} {:>9} {:>8} {:>6}\n", "M x K", "N",
                     "sparsity", "format", "product", "us", "fastest-slowest", "TB/s", "roofline", "speed-up",
                     "error");
}

std::string table_line(const SpmmRow& row, const kernels::SpmmDeviceRates& rates) {
  std::string text = fmt::format("{:<12} {:>4} {:>8.2f} {:<12} {:<24} ", shape_text(row.shape), row.n,
                                 row.sparsity, row.format, row.product);
  if (!row.measured()) return text + "not measured: " + row.timing.why_not + "\n";
  const kernels::SpmmTiming& t = row.timing;
  text +=
      fmt::format("{:>9.1f} {:>17} {:>7.3f} {:>7.1f} % {:>8} {:>6.2f}", t.sec * 1e6,
                  fmt::format("{:.1f}-{:.1f}", t.low_sec * 1e6, t.high_sec * 1e6),
                  static_cast<double>(row.stored_bytes) / t.sec * 1e-12, 100 * share_of_roofline(row, rates),
                  row.speedup > 0 ? fmt::format("{:.2f}", row.speedup) : "-", t.worst_error);
  return text + (row.right() ? "\n" : " WRONG\n");
}

std::string csv_head() {
  return "rows,cols,n,sparsity,format,product,us,us_low,us_high,stored_bytes,bytes_per_weight,stored_tb_per_"
         "sec,"
         "roofline_share,speedup,worst_error,not_measured\n";
}

std::string csv_line(const SpmmRow& row, const kernels::SpmmDeviceRates& rates) {
  const auto [m, k] = row.shape;
  std::string text = fmt::format("{},{},{},{},{},{},", m, k, row.n, row.sparsity, row.format, row.product);
  if (!row.measured()) {
    std::string quoted;
    for (const char c : row.timing.why_not) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
    return text + fmt::format(",,,{},,,,,,\"{}\"\n", row.stored_bytes, quoted);
  }
  const kernels::SpmmTiming& t = row.timing;
  return text +
         fmt::format("{:.3f},{:.3f},{:.3f},{},{:.4f},{:.4f},{:.4f},{},{:.3f},\n", t.sec * 1e6,
                     t.low_sec * 1e6, t.high_sec * 1e6, row.stored_bytes,
                     static_cast<double>(row.stored_bytes) / static_cast<double>(m * k),
                     static_cast<double>(row.stored_bytes) / t.sec * 1e-12, share_of_roofline(row, rates),
                     row.speedup > 0 ? fmt::format("{:.4f}", row.speedup) : std::string(), t.worst_error);
}

std::string summary(const std::vector<SpmmRow>& rows, const kernels::SpmmDeviceRates& rates) {
  std::set<std::pair<std::int64_t, std::int64_t>> shapes;
  for (const SpmmRow& row : rows) shapes.insert({row.shape.rows, row.shape.cols});
  Means speedups;
  Means shares;
  Means expansions;
  const auto add = [&](const SpmmRow& row) {
    if (!row.measured() || !row.right()) return;
    const std::string line = line_of(row);
    if (row.kind == SpmmKind::kExpansion) {
      expansions.add(line, row.sparsity, 100 * share_of_roofline(row, rates));
      return;
    }
    if (row.speedup > 0) speedups.add(line, row.sparsity, row.speedup);
    shares.add(line, row.sparsity, 100 * share_of_roofline(row, rates));
  };
  for (const SpmmRow& row : best_fused(rows)) add(row);
  for (const SpmmRow& row : rows) add(row);
  return fmt::format("\nGeometric means over {} shape{}\n", shapes.size(), shapes.size() == 1 ? "" : "s") +
         speedups.text("speed-up over the better dense peer", "{:.2f}", shapes.size()) +
         shares.text("share of the roofline, %", "{:.0f}", shapes.size()) +
         expansions.text("expansion, % of the copy rate", "{:.0f}", shapes.size());
}

}  // namespace sluice::apps
