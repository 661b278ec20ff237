// A hardware profile as functions: how long a copy, a product or an attention takes when nothing else works,
// and what lanes leave each other when several do. HARDWARE.md beside this file gives the formulas. Pure;
// thread-safe when const.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/format.h"
#include "core/kv_page.h"
#include "policy/hardware.h"
#include "policy/step.h"

namespace sluice::policy {

enum class Link : std::uint8_t { kH2d, kD2h };

class Rates {
 public:
  /// `attention_threads`: of the cpu lane; 0 takes the profile's row of the most threads.
  explicit Rates(const HardwareProfile& hardware, int attention_threads = 0);

  /// Seconds to move `bytes` over a link in pieces of at most `piece_bytes`.
  double copy_sec(Link link, std::int64_t bytes, std::int64_t piece_bytes) const;
  double disk_read_sec(std::int64_t bytes) const { return static_cast<double>(bytes) / disk_read_; }
  double disk_write_sec(std::int64_t bytes) const { return static_cast<double>(bytes) / disk_write_; }
  /// Of `rows` activations with one weight matrix of `elements`, zeros included, by the faster kernel.
  double product_sec(Encoding format, std::int64_t rows, std::int64_t elements) const;
  /// Of what only reads and writes GPU memory.
  double gpu_copy_sec(double bytes) const { return bytes / gpu_copy_; }
  double gpu_decode_sec(double kv_bytes) const { return kv_bytes / gpu_attention_; }
  double gpu_prefill_sec(double operations) const { return operations / gpu_attention_flops_; }
  double cpu_decode_sec(KvFormat format, double kv_bytes) const {
    return kv_bytes / cpu_attention_[static_cast<std::size_t>(format)];
  }
  /// Beside the work, for one step of the lane while nothing else works.
  double overhead_sec(LaneKind lane) const;
  double pass_overhead_sec() const { return pass_sec_; }

  /// What a lane keeps of its rate while the lanes of `working` (bit i: lane i; itself included) work.
  double share(LaneKind lane, unsigned working) const { return shares_[working][lane_index(lane)]; }
  /// The same of its overhead: launches read host memory, and wait longer where copies take the link.
  double overhead_share(LaneKind lane, unsigned working) const {
    return overhead_shares_[working][lane_index(lane)];
  }

 private:
  /// A piecewise linear function of seconds, through points of rising x.
  struct Curve {
    struct Point {
      double x = 0, sec = 0;
    };
    std::vector<Point> points;
    double at(double x) const;
  };
  /// Seconds of one weight element of a matrix of `elements` (0: of any), by rows.
  struct ProductCurve {
    double elements = 0;
    Curve per_element;
    double sec(double rows, double of_elements) const { return per_element.at(rows) * of_elements; }
  };
  /// The matrices that were measured with one kernel, by rising size.
  struct ProductKernelRates {
    Encoding format = Encoding::kDense;
    ProductKernel kernel = ProductKernel::kFused;
    std::vector<ProductCurve> sizes;
    double sec(double rows, double elements) const;
  };

  static Curve copy_curve(std::vector<PieceRate> rates);
  void fill_products(const GpuRates& gpu);
  void fill_attention(const CpuRates& cpu, int threads);
  void fill_shares(const HardwareProfile& hardware, int threads);
  void fill_overhead_shares();

  std::array<Curve, 2> copies_;  // seconds of one piece, by its bytes
  std::vector<ProductKernelRates> products_;
  double gpu_copy_ = 0, gpu_attention_ = 0, gpu_attention_flops_ = 0;
  std::array<double, 2> cpu_attention_{};  // by KvFormat
  double disk_read_ = 0, disk_write_ = 0;
  StepOverheads overheads_;
  double pass_sec_ = 0;
  using Shares = std::array<std::array<double, kNumLanes>, 1U << kNumLanes>;  // [working][lane]
  Shares shares_{}, overhead_shares_{};
};

/// Threads of the profile's cpu.attention rows, ascending.
std::vector<int> attention_threads(const HardwareProfile& hardware);

}  // namespace sluice::policy
