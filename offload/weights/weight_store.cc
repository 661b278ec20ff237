#include "offload/weights/weight_store.h"

#include <algorithm>
#include <unordered_map>

namespace sluice::offload {
using policy::Purpose;

WeightStore::WeightStore(const WeightSource& source, const policy::RunShape& shape, const TierMemory& memory)
    : source_(source), shape_(shape), memory_(memory), disk_(shape.units.size()) {
  index_tensors();
  for (std::size_t i = 0; i < shape.tensors.size(); ++i) {
    const policy::TensorHome& tensor = shape.tensors[i];
    if (tensor.tier != Tier::kDisk) continue;
    const auto unit = static_cast<std::size_t>(shape.carrier(source.tensors()[i].spec.unit));
    disk_[unit].tensors.push_back(
        {.tensor = i, .part_offset = tensor.slot_offset - shape.units[unit].cpu_bytes});
  }
  for (UnitDisk& unit : disk_) unit.running = std::make_unique<StoreChecksum>();
  const std::span<std::byte> slabs = memory.block(Purpose::kWeightSlabs, Tier::kCpu);
  if (!slabs.empty()) slabs_.emplace(slabs, shape.traits.weight_piece_bytes);
}

void WeightStore::index_tensors() {
  std::unordered_map<std::string, std::int64_t> numbers;
  for (std::size_t i = 0; i < source_.tensors().size(); ++i) {
    numbers.emplace(source_.tensors()[i].spec.name, static_cast<std::int64_t>(i));
  }
  const auto find = [&](const std::string& name) {
    const auto found = numbers.find(name);
    return found == numbers.end() ? -1 : found->second;
  };
  const auto norm_of = [&](const std::string& name) {
    return NormIndex{find(name + ".weight"), find(name + ".bias")};
  };
  const auto linear_of = [&](const std::string& name) {
    return LinearIndex{find(name + ".weight"), find(name + ".bias")};
  };
  for (std::int64_t i = 0; i < shape_.spec.num_layers; ++i) {
    const std::string layer = fmt::format("decoder.layers.{}.", i);
    layers_.push_back({norm_of(layer + "self_attn_layer_norm"), norm_of(layer + "final_layer_norm"),
                       linear_of(layer + "self_attn.q_proj"), linear_of(layer + "self_attn.k_proj"),
                       linear_of(layer + "self_attn.v_proj"), linear_of(layer + "self_attn.out_proj"),
                       linear_of(layer + "fc1"), linear_of(layer + "fc2")});
  }
  final_norm_ = norm_of("decoder.final_layer_norm");
  embed_tokens_ = find("decoder.embed_tokens.weight");
  embed_positions_ = find("decoder.embed_positions.weight");
  project_in_ = find("decoder.project_in.weight");
  project_out_ = find("decoder.project_out.weight");
  vocab_ = shape_.spec.tied_embedding ? embed_tokens_ : find("lm_head.weight");
}

// ---- Start.

void WeightStore::open_files(BlockIo& io) {
  if (source_.synthetic()) {
    const ScratchFile* file = memory_.file(Purpose::kWeights);
    if (file == nullptr) return;
    const FileId id = io.open(file->path(), FileMode::kReadWriteCreate);
    for (UnitDisk& unit : disk_) {
      for (DiskTensor& tensor : unit.tensors) {
        tensor.file = id;
        tensor.file_offset = shape_.tensors[tensor.tensor].home_offset;
        tensor.verified = true;  // made by this run
      }
    }
    return;
  }
  const Manifest& manifest = source_.manifest();
  std::vector<FileId> ids(manifest.files.size(), -1);
  for (UnitDisk& unit : disk_) {
    for (DiskTensor& tensor : unit.tensors) {
      const StoredTensor& stored = manifest.tensors[tensor.tensor];
      FileId& id = ids.at(static_cast<std::size_t>(stored.file));
      if (id < 0)
        id =
            io.open(source_.store() / manifest.files[static_cast<std::size_t>(stored.file)], FileMode::kRead);
      tensor.file = id;
      tensor.file_offset = stored.offset;
    }
  }
}

// ---- Streaming.

void WeightStore::read_requests(std::int64_t unit, std::int64_t piece, std::int64_t stage_slot,
                                std::vector<IoRequest>& out) const {
  const policy::UnitStream& stream = shape_.units[static_cast<std::size_t>(unit)];
  const std::int64_t first = (piece - shape_.cpu_pieces(stream)) * shape_.traits.weight_piece_bytes;
  const std::int64_t last = std::min(first + shape_.traits.weight_piece_bytes, stream.disk_bytes);
  std::byte* const stage =
      memory_.block(Purpose::kWeightStage, Tier::kCpu).data() + stage_slot * shape_.weight_stage_bytes;
  for (const DiskTensor& tensor : disk_[static_cast<std::size_t>(unit)].tensors) {
    const std::int64_t begin = std::max(first, tensor.part_offset);
    const std::int64_t end = std::min(last, tensor.part_offset + shape_.tensors[tensor.tensor].padded_bytes);
    if (begin >= end) continue;
    const std::int64_t offset = tensor.file_offset + begin - tensor.part_offset;
    if (!out.empty() && out.back().file == tensor.file && out.back().offset + out.back().bytes == offset) {
      out.back().bytes += end - begin;  // neighbours in the file are neighbours in the slot
      continue;
    }
    out.push_back({.op = IoOp::kRead,
                   .file = tensor.file,
                   .offset = offset,
                   .data = stage + begin,
                   .bytes = end - begin});
  }
}

std::span<std::byte> WeightStore::slot(std::int64_t weight_slot) const {
  return memory_.block(Purpose::kWeightSlots, Tier::kGpu)
      .subspan(static_cast<std::size_t>(weight_slot * shape_.weight_slot_bytes),
               static_cast<std::size_t>(shape_.weight_slot_bytes));
}

std::int64_t WeightStore::load_piece(std::int64_t unit, std::int64_t piece, std::int64_t weight_slot,
                                     std::int64_t stage_slot, std::int64_t seq, kernels::Stream& stream) {
  const policy::UnitStream& traffic = shape_.units[static_cast<std::size_t>(unit)];
  const std::int64_t cpu_pieces = shape_.cpu_pieces(traffic);
  const bool staged = piece >= cpu_pieces;
  const std::int64_t first = (staged ? piece - cpu_pieces : piece) * shape_.traits.weight_piece_bytes;
  const std::int64_t bytes =
      std::min(shape_.traits.weight_piece_bytes, (staged ? traffic.disk_bytes : traffic.cpu_bytes) - first);
  const std::byte* from =
      staged ? memory_.block(Purpose::kWeightStage, Tier::kCpu).data() +
                   stage_slot * shape_.weight_stage_bytes + first
             : memory_.block(Purpose::kWeights, Tier::kCpu).data() + traffic.cpu_offset + first;
  if (staged) verify_staged(unit, first, {from, static_cast<std::size_t>(bytes)});
  std::byte* to = slot(weight_slot).data() + (staged ? traffic.cpu_bytes : 0) + first;
  if (slabs_ && !staged) {
    slabs_->send(to, {from, static_cast<std::size_t>(bytes)}, seq, stream);
  } else {
    stream.copy(to, from, bytes);
  }
  return bytes;
}

void WeightStore::copy_resident(std::int64_t unit, std::int64_t weight_slot, kernels::Stream& stream) const {
  const policy::UnitStream& traffic = shape_.units[static_cast<std::size_t>(unit)];
  if (traffic.cpu_bytes == 0) return;
  stream.copy(slot(weight_slot).data(),
              memory_.block(Purpose::kWeights, Tier::kCpu).data() + traffic.cpu_offset, traffic.cpu_bytes);
}

void WeightStore::verify_staged(std::int64_t unit, std::int64_t first, std::span<const std::byte> bytes) {
  UnitDisk& disk = disk_[static_cast<std::size_t>(unit)];
  const std::int64_t last = first + static_cast<std::int64_t>(bytes.size());
  while (disk.next_to_verify < disk.tensors.size()) {
    DiskTensor& tensor = disk.tensors[disk.next_to_verify];
    if (tensor.verified) {
      ++disk.next_to_verify;
      continue;
    }
    const std::int64_t tensor_end = tensor.part_offset + source_.tensors()[tensor.tensor].bytes;
    const std::int64_t begin = std::max(first, tensor.part_offset);
    const std::int64_t end = std::min(last, tensor_end);
    if (begin < end) {
      disk.running->update(
          bytes.subspan(static_cast<std::size_t>(begin - first), static_cast<std::size_t>(end - begin)));
    }
    if (last < tensor_end) return;  // the rest comes with the next piece
    verify_tensor(source_.store(), source_.manifest(), source_.manifest().tensors[tensor.tensor],
                  disk.running->value());
    disk.running->reset();
    tensor.verified = true;
    ++disk.next_to_verify;
  }
}

// ---- Views.

const std::byte* WeightStore::address(std::int64_t tensor, std::int64_t weight_slot) const {
  const policy::TensorHome& home = shape_.tensors[static_cast<std::size_t>(tensor)];
  if (home.tier == Tier::kGpu) return memory_.block(Purpose::kWeights, Tier::kGpu).data() + home.home_offset;
  return slot(weight_slot).data() + home.slot_offset;
}

kernels::WeightView WeightStore::matrix(std::int64_t tensor, std::int64_t weight_slot) const {
  if (tensor < 0) return {};
  const SourceTensor& source = source_.tensors()[static_cast<std::size_t>(tensor)];
  return {source.format,
          {address(tensor, weight_slot), static_cast<std::size_t>(source.bytes)},
          source.spec.rows,
          source.spec.cols};
}

ConstVectorView WeightStore::vector(std::int64_t tensor, std::int64_t weight_slot) const {
  if (tensor < 0) return {};
  const SourceTensor& source = source_.tensors()[static_cast<std::size_t>(tensor)];
  return {address(tensor, weight_slot), source.format.dtype, source.spec.cols};
}

kernels::NormWeights WeightStore::norm(const NormIndex& norm, std::int64_t weight_slot) const {
  return {vector(norm.gamma, weight_slot), vector(norm.beta, weight_slot)};
}

kernels::LinearWeights WeightStore::linear(const LinearIndex& linear, std::int64_t weight_slot) const {
  return {matrix(linear.weight, weight_slot), vector(linear.bias, weight_slot)};
}

kernels::DecoderWeights WeightStore::decoder(std::int64_t unit, std::int64_t weight_slot) const {
  const DecoderIndex& layer = layers_[static_cast<std::size_t>(unit - 1)];
  return {norm(layer.attn_norm, weight_slot), norm(layer.mlp_norm, weight_slot),
          linear(layer.q, weight_slot),       linear(layer.k, weight_slot),
          linear(layer.v, weight_slot),       linear(layer.out, weight_slot),
          linear(layer.fc1, weight_slot),     linear(layer.fc2, weight_slot)};
}

kernels::InputWeights WeightStore::input(std::int64_t weight_slot) const {
  return {matrix(embed_tokens_, weight_slot), matrix(embed_positions_, weight_slot),
          matrix(project_in_, weight_slot)};
}

kernels::OutputWeights WeightStore::output(std::int64_t weight_slot) const {
  return {norm(final_norm_, weight_slot), matrix(project_out_, weight_slot), matrix(vocab_, weight_slot)};
}

}  // namespace sluice::offload
