// What a machine can do, as measured: the rates that the simulation and the planner count with. A plain
// struct that YAML files fill (configs/hardware, `sluice profile`); HARDWARE.md beside this file says how
// each figure is measured and used. Rates are 10^9 bytes or 10^12 operations a second. Pure, thread-safe.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/config/fields.h"
#include "core/config/format_names.h"
#include "core/config/missing_fields.h"
#include "policy/step.h"

namespace sluice::policy {

/// Where the figures come from.
struct MachineInfo {
  std::string name;    ///< "T4, 208 GB, 1.5 TB SSD"
  std::string device;  ///< of the gpu lane, as Device::description says it
  std::string cpu;
  std::string date;    ///< of the measurement, 2026-11-21
  std::string source;  ///< "measured", or what was published by whom
};

/// What can be reserved, after what the system and others hold.
struct MachineMemory {
  double gpu_gib = 8;
  double cpu_gib = 16;
  double disk_gib = 0;
  bool gpu_is_host = false;   ///< the GPU tier is host memory (CPU device): gpu + cpu is at most cpu_gib
  double pinned_gib = 0;      ///< the most that could be pinned; 0: not measured
  double pin_gb_per_sec = 2;  ///< pinning, first touch included
};

/// Copies in pieces of one size.
struct PieceRate {
  double piece_kib = 0;
  double gb_per_sec = 0;
  double spread_percent = 0;  ///< half of highest - lowest, in percent of the median
};

struct LinkRates {
  std::vector<PieceRate> h2d{{.piece_kib = 64, .gb_per_sec = 4}, {.piece_kib = 32768, .gb_per_sec = 10}};
  std::vector<PieceRate> d2h{{.piece_kib = 64, .gb_per_sec = 4}, {.piece_kib = 32768, .gb_per_sec = 10}};
  double pageable_gb_per_sec = 4;  ///< h2d from memory that is not pinned
};

enum class ProductKernel : std::uint8_t {
  kFused,   ///< on the stored form; of dense weights the only one
  kExpand,  ///< made dense slice by slice, then multiplied
};
constexpr auto enum_names(ProductKernel) {
  return std::to_array<EnumName<ProductKernel>>(
      {{ProductKernel::kFused, "fused"}, {ProductKernel::kExpand, "expand"}});
}

/// A product of `rows` rows with a weight matrix as large as those of a large model, or of a stated size.
struct ProductRate {
  Encoding format = Encoding::kDense;
  ProductKernel kernel = ProductKernel::kFused;
  double rows = 0;
  double tflop_per_sec = 0;  ///< 2 rows m k operations over the time, whatever the zeros
  double spread_percent = 0;
  double million_weights = 0;  ///< of the matrix, zeros included; 0: the rate of any matrix
};

struct GpuRates {
  double copy_gb_per_sec = 200;        ///< copies inside its memory, bytes read plus written
  double attention_gb_per_sec = 150;   ///< decode attention, bytes of K and V read
  double attention_tflop_per_sec = 2;  ///< prefill attention, causal operations
  std::vector<ProductRate> products{{.rows = 1, .tflop_per_sec = 0.18},
                                    {.rows = 64, .tflop_per_sec = 8},
                                    {.rows = 1024, .tflop_per_sec = 20}};
};

/// Decode attention on the CPU.
struct AttentionRate {
  KvFormat kv_format = KvFormat::kF16;
  int threads = 0;
  double gb_per_sec = 0;  ///< bytes of K and V read, without StepOverheads::cpu_usec
  double spread_percent = 0;
};

struct CpuRates {
  std::vector<AttentionRate> attention{{.threads = 4, .gb_per_sec = 15}};
  double read_gb_per_sec = 20;
  double memcpy_gb_per_sec = 8;  ///< bytes copied
};

struct DiskRate {
  int queue_depth = 1;
  double piece_kib = 0;
  double gb_per_sec = 0;
  double spread_percent = 0;
};

struct DiskRates {
  std::vector<DiskRate> read{{.queue_depth = 8, .piece_kib = 1024, .gb_per_sec = 1}};
  std::vector<DiskRate> write{{.queue_depth = 8, .piece_kib = 1024, .gb_per_sec = 0.8}};
};

/// `lane` keeps `share` of its rate while `other` works. Those of several others are multiplied.
struct LaneBeside {
  LaneKind lane = LaneKind::kGpu;
  LaneKind other = LaneKind::kGpu;
  double share = 1;
};
/// The urgent lanes have the rates of their link.
constexpr auto enum_names(LaneKind) {
  return std::to_array<EnumName<LaneKind>>({{LaneKind::kDiskRead, "disk_read"},
                                            {LaneKind::kDiskWrite, "disk_write"},
                                            {LaneKind::kH2d, "h2d"},
                                            {LaneKind::kD2h, "d2h"},
                                            {LaneKind::kGpu, "gpu"},
                                            {LaneKind::kCpu, "cpu"}});
}

/// The same between a link and the cpu lane, by the threads that attend.
struct LinkBesideAttention {
  int threads = 0;
  double h2d_share = 1, d2h_share = 1, attention_share = 1;
};

/// Time that a step takes beside its work: launches, wake-ups, submission.
struct StepOverheads {
  double gpu_usec = 30;
  double transfer_usec = 10;
  double cpu_usec = 30;
  double disk_usec = 100;
  double pass_usec = 300;          ///< between the results of a pass and the first step of the next
  double gpu_beside_h2d_usec = 0;  ///< of a gpu step while the bulk h2d lane works; up to gpu_usec: as alone
  double gpu_beside_d2h_usec = 0;  ///< the same of d2h
};

struct HardwareProfile {
  MachineInfo machine;
  MachineMemory memory;
  LinkRates link;
  GpuRates gpu;
  CpuRates cpu;
  DiskRates disk;
  std::vector<LaneBeside> beside{{LaneKind::kH2d, LaneKind::kD2h, 0.85},
                                 {LaneKind::kD2h, LaneKind::kH2d, 0.85}};
  std::vector<LinkBesideAttention> beside_attention;
  StepOverheads overheads;
};

/// The most bytes a second that any of the rows has (PieceRate, DiskRate, ...); 0 without rows.
template <class Row>
double most_bytes_per_sec(const std::vector<Row>& rows) {
  double best = 0;
  for (const Row& row : rows) best = std::max(best, row.gb_per_sec);
  return 1e9 * best;
}

/// The transfers that the engine keeps going on a disk: what offload/io/block_io.h takes by default.
inline constexpr int kDiskQueueDepth = 64;
inline constexpr double kDiskPieceKib = 1024;

/// Bytes a second of the row that is measured as the engine moves bytes; without one, of that whose piece,
/// and then whose queue depth, comes nearest (by ratio). `rows` has one at least.
double disk_bytes_per_sec(const std::vector<DiskRate>& rows);

struct ReadProfile {
  HardwareProfile profile;
  std::vector<MissingField> defaulted;  ///< fields that the text leaves out, with what they were given
};

/// Reads YAML; `file_name` is for messages. Throws Error{kInvalidArgument} with every problem, a line each.
ReadProfile parse_hardware(std::string_view yaml, const std::string& file_name);
/// A profile that ships with the program ("t4-208gb"), or nothing; and the names of all.
std::optional<HardwareProfile> find_builtin_hardware(std::string_view name);
std::vector<std::string> builtin_hardware_names();
/// The YAML that parse_hardware reads back to an equal profile.
std::string to_yaml(const HardwareProfile& profile);

// ---- Fields.

template <class Visitor>
void visit_fields(Visitor& visit, MachineInfo& machine) {
  visit("name", machine.name, "for people");
  visit("device", machine.device, "of the gpu lane; a run on another one is warned of");
  visit("cpu", machine.cpu, "processor and threads");
  visit("date", machine.date, "of the measurement");
  visit("source", machine.source, "measured, or who published it");
}

template <class Visitor>
void visit_fields(Visitor& visit, MachineMemory& memory) {
  visit("gpu_gib", memory.gpu_gib, "GPU memory that can be reserved", above(0));
  visit("cpu_gib", memory.cpu_gib, "host memory that can be reserved", above(0));
  visit("disk_gib", memory.disk_gib, "free disk; 0: no disk tier", at_least(0));
  visit("gpu_is_host", memory.gpu_is_host, "the GPU tier is host memory; both share cpu_gib");
  visit("pinned_gib", memory.pinned_gib, "most that could be pinned; 0: not measured", at_least(0));
  visit("pin_gb_per_sec", memory.pin_gb_per_sec, "pinning and first touch", above(0));
}

template <class Visitor>
void visit_fields(Visitor& visit, PieceRate& rate) {
  visit("piece_kib", rate.piece_kib, "size of a piece", above(0));
  visit("gb_per_sec", rate.gb_per_sec, "median", above(0));
  visit("spread_percent", rate.spread_percent, "half of highest - lowest", at_least(0));
}

template <class Visitor>
void visit_fields(Visitor& visit, LinkRates& link) {
  visit("h2d", link.h2d, "pinned memory to GPU, by piece");
  visit("d2h", link.d2h, "GPU to pinned memory, by piece");
  visit("pageable_gb_per_sec", link.pageable_gb_per_sec, "h2d of memory that is not pinned", above(0));
}

template <class Visitor>
void visit_fields(Visitor& visit, ProductRate& rate) {
  visit("format", rate.format, "of the weights");
  visit("kernel", rate.kernel, "fused or expand");
  visit("rows", rate.rows, "rows of the activations", at_least(1));
  visit("tflop_per_sec", rate.tflop_per_sec, "median", above(0));
  visit("spread_percent", rate.spread_percent, "half of highest - lowest", at_least(0));
  visit("million_weights", rate.million_weights, "of the matrix; 0: of any", at_least(0));
}

template <class Visitor>
void visit_fields(Visitor& visit, GpuRates& gpu) {
  visit("copy_gb_per_sec", gpu.copy_gb_per_sec, "copies in GPU memory, read plus written", above(0));
  visit("attention_gb_per_sec", gpu.attention_gb_per_sec, "decode attention, K and V read", above(0));
  visit("attention_tflop_per_sec", gpu.attention_tflop_per_sec, "prefill attention", above(0));
  visit("products", gpu.products, "of activations and weights, by format, kernel and rows");
}

template <class Visitor>
void visit_fields(Visitor& visit, AttentionRate& rate) {
  visit("kv_format", rate.kv_format, "of K and V");
  visit("threads", rate.threads, "that attend", at_least(1));
  visit("gb_per_sec", rate.gb_per_sec, "K and V read", above(0));
  visit("spread_percent", rate.spread_percent, "half of highest - lowest", at_least(0));
}

template <class Visitor>
void visit_fields(Visitor& visit, CpuRates& cpu) {
  visit("attention", cpu.attention, "decode attention by KV format and threads");
  visit("read_gb_per_sec", cpu.read_gb_per_sec, "plain loads, all threads", above(0));
  visit("memcpy_gb_per_sec", cpu.memcpy_gb_per_sec, "bytes copied, all threads", above(0));
}

template <class Visitor>
void visit_fields(Visitor& visit, DiskRate& rate) {
  visit("queue_depth", rate.queue_depth, "pieces in flight", at_least(1));
  visit("piece_kib", rate.piece_kib, "size of a piece", above(0));
  visit("gb_per_sec", rate.gb_per_sec, "median", above(0));
  visit("spread_percent", rate.spread_percent, "half of highest - lowest", at_least(0));
}

template <class Visitor>
void visit_fields(Visitor& visit, DiskRates& disk) {
  visit("read", disk.read, "O_DIRECT reads; the row nearest to the engine's, 64 of 1024 KiB, counts");
  visit("write", disk.write, "O_DIRECT writes, the same way");
}

template <class Visitor>
void visit_fields(Visitor& visit, LaneBeside& beside) {
  visit("lane", beside.lane, "whose rate");
  visit("other", beside.other, "while this one works");
  visit("share", beside.share, "what it keeps", Bounds{.min = 0, .max = 1, .above_min = true});
}

template <class Visitor>
void visit_fields(Visitor& visit, LinkBesideAttention& beside) {
  const Bounds share{.min = 0, .max = 1, .above_min = true};
  visit("threads", beside.threads, "that attend", at_least(1));
  visit("h2d_share", beside.h2d_share, "what h2d keeps", share);
  visit("d2h_share", beside.d2h_share, "what d2h keeps", share);
  visit("attention_share", beside.attention_share, "what attention keeps while h2d runs", share);
}

template <class Visitor>
void visit_fields(Visitor& visit, StepOverheads& overheads) {
  visit("gpu_usec", overheads.gpu_usec, "of a step on the gpu lane", at_least(0));
  visit("gpu_beside_h2d_usec", overheads.gpu_beside_h2d_usec, "the same while h2d works; 0: as alone",
        at_least(0));
  visit("gpu_beside_d2h_usec", overheads.gpu_beside_d2h_usec, "the same while d2h works; 0: as alone",
        at_least(0));
  visit("transfer_usec", overheads.transfer_usec, "of a transfer", at_least(0));
  visit("cpu_usec", overheads.cpu_usec, "of an attention step on the CPU", at_least(0));
  visit("disk_usec", overheads.disk_usec, "of a disk step", at_least(0));
  visit("pass_usec", overheads.pass_usec, "between two passes", at_least(0));
}

template <class Visitor>
void visit_fields(Visitor& visit, HardwareProfile& profile) {
  visit("machine", profile.machine, "where the figures come from");
  visit("memory", profile.memory, "what can be reserved");
  visit("link", profile.link, "between host and GPU");
  visit("gpu", profile.gpu, "the gpu lane");
  visit("cpu", profile.cpu, "the cpu lane");
  visit("disk", profile.disk, "the disk lanes");
  visit("beside", profile.beside, "what a lane keeps of its rate while another works");
  visit("beside_attention", profile.beside_attention, "links and attention together, by threads");
  visit("overheads", profile.overheads, "time beside the work");
}

}  // namespace sluice::policy
