#!/usr/bin/env python3
"""Writes a random checkpoint with the layout of facebook/opt-* on the Hugging Face hub, for tests at real size.

  make_opt_checkpoint.py 6.7b /tmp/opt-6.7b        # 13.3 GB, two shards, in about as long as the disk takes

What is the same as on the hub: config.json, the names of shards and index, the keys and their order, fp16, torch's
zip container (stored entries aligned to 64 bytes, protocol-2 pickle, zip64 where offsets need it), and the way in
which tensors are dealt to shards: in order, a new shard when the next tensor would take it past 10 GB. For 6.7b that
gives 9.96 and 3.36 GB, the sizes of the real shards; they hold each parameter once, so lm_head.weight, which is tied to
embed_tokens, is not among the keys. --lm-head adds it, as other exports of OPT do.

Needs Python alone. Values are cut from pools of random fp16 numbers whose scale follows the tensor's role, so that
activations stay finite: the model runs, and says nothing.
"""

import argparse
import json
import math
import os
import random
import struct
import sys
import zlib

# name: layers, hidden, heads, embed_proj_dim
SIZES = {
    "tiny": (2, 64, 4, 64),
    "125m": (12, 768, 12, 768),
    "350m": (24, 1024, 16, 512),
    "1.3b": (24, 2048, 32, 2048),
    "2.7b": (32, 2560, 32, 2560),
    "6.7b": (32, 4096, 32, 4096),
    "13b": (40, 5120, 40, 5120),
    "30b": (48, 7168, 56, 7168),
    "66b": (64, 9216, 72, 9216),
}
VOCAB, POSITIONS = 50272, 2048
POOL_BYTES = 64 << 20
PIECE_BYTES = 8 << 20


def config_of(size):
    layers, hidden, heads, embed = SIZES[size]
    post_norm = size == "350m"
    return {
        "_name_or_path": f"facebook/opt-{size}",
        "activation_dropout": 0.0,
        "activation_function": "relu",
        "architectures": ["OPTForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 2,
        "do_layer_norm_before": not post_norm,
        "dropout": 0.1,
        "eos_token_id": 2,
        "ffn_dim": 4 * hidden,
        "hidden_size": hidden,
        "init_std": 0.02,
        "layerdrop": 0.0,
        "max_position_embeddings": POSITIONS,
        "model_type": "opt",
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "pad_token_id": 1,
        "prefix": "</s>",
        "torch_dtype": "float16",
        "use_cache": True,
        "vocab_size": VOCAB,
        "word_embed_proj_dim": embed,
    }


def tensors_of(config, with_lm_head):
    """(key, shape) in the order of the state dict."""
    hidden, embed, ffn = config["hidden_size"], config["word_embed_proj_dim"], config["ffn_dim"]
    decoder = "model.decoder."
    yield decoder + "embed_tokens.weight", (VOCAB, embed)
    yield decoder + "embed_positions.weight", (POSITIONS + 2, hidden)
    if embed != hidden:
        yield decoder + "project_out.weight", (embed, hidden)
        yield decoder + "project_in.weight", (hidden, embed)
    if config["do_layer_norm_before"]:
        yield decoder + "final_layer_norm.weight", (hidden,)
        yield decoder + "final_layer_norm.bias", (hidden,)
    for i in range(config["num_hidden_layers"]):
        layer = f"{decoder}layers.{i}."
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            yield f"{layer}self_attn.{name}.weight", (hidden, hidden)
            yield f"{layer}self_attn.{name}.bias", (hidden,)
        yield layer + "self_attn_layer_norm.weight", (hidden,)
        yield layer + "self_attn_layer_norm.bias", (hidden,)
        yield layer + "fc1.weight", (ffn, hidden)
        yield layer + "fc1.bias", (ffn,)
        yield layer + "fc2.weight", (hidden, ffn)
        yield layer + "fc2.bias", (hidden,)
        yield layer + "final_layer_norm.weight", (hidden,)
        yield layer + "final_layer_norm.bias", (hidden,)
    if with_lm_head:
        yield "lm_head.weight", (VOCAB, embed)


def bytes_of(shape):
    return 2 * math.prod(shape)


def deal_to_shards(tensors, most_bytes):
    shards, size = [[]], 0
    for key, shape in tensors:
        if shards[-1] and size + bytes_of(shape) > most_bytes:
            shards.append([])
            size = 0
        shards[-1].append((key, shape))
        size += bytes_of(shape)
    return shards


class Values:
    """fp16 bytes for tensors. A pool holds numbers of one scale; a tensor is cut from it at a place of its own."""

    def __init__(self, num_layers, seed):
        self.random = random.Random(seed)
        self.residual = 1 / math.sqrt(2 * num_layers)
        self.pools = {}

    def pool(self, exponent, signed):
        """Magnitudes are spread over [2^exponent, 2^(exponent + 1)), half of them one octave lower."""
        if (exponent, signed) not in self.pools:
            biased = max(exponent + 15, 1)
            high = bytearray(256)  # maps a random byte to sign, exponent and the two top bits of the mantissa
            for byte in range(256):
                octave = biased - (byte >> 6 & 1) if signed else biased
                high[byte] = (byte & 0x80 if signed else 0) | octave << 2 | byte & 3
            data = bytearray(POOL_BYTES)
            data[0::2] = self.random.randbytes(POOL_BYTES // 2)
            data[1::2] = self.random.randbytes(POOL_BYTES // 2).translate(bytes(high))
            self.pools[exponent, signed] = memoryview(bytes(data))
        return self.pools[exponent, signed]

    def pieces(self, key, shape):
        if len(shape) == 1:
            is_gain = key.endswith("layer_norm.weight")
            pool = self.pool(0, signed=False) if is_gain else self.pool(-6, signed=True)
        else:
            std = 1 / math.sqrt(shape[1])
            if "out_proj" in key or "fc2" in key:
                std *= self.residual
            pool = self.pool(math.floor(math.log2(std)), signed=True)
        left = bytes_of(shape)
        while left > 0:
            start = 2 * self.random.randrange(POOL_BYTES // 4)
            piece = pool[start : start + min(left, PIECE_BYTES)]
            yield piece
            left -= len(piece)


class TorchZip:
    """A stored (uncompressed) zip archive as torch.save writes it."""

    def __init__(self, path, root):
        self.file = open(path, "wb", buffering=0)
        self.root = root
        self.offset = 0
        self.entries = []

    def write(self, data):
        view = memoryview(data)
        while view:  # a raw write may be short
            view = view[self.file.write(view) :]
        self.offset += len(data)

    def add(self, name, pieces, size):
        name = f"{self.root}/{name}".encode()
        start = self.offset
        # An extra field "FB" of padding puts the data at a multiple of 64 bytes.
        padding = -(start + 30 + len(name) + 4) % 64
        extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
        header = lambda crc: struct.pack(
            "<IHHHHHIIIHH", 0x04034B50, 0, 0, 0, 0, 0, crc, size, size, len(name), len(extra)
        )
        assert size < 0xFFFFFFFF, "one tensor beyond 4 GiB needs sizes in the zip64 field"
        self.write(header(0) + name + extra)
        crc = 0
        for piece in pieces:
            crc = zlib.crc32(piece, crc)
            self.write(piece)
        os.pwrite(self.file.fileno(), header(crc), start)  # now that it is known
        self.entries.append((name, start, size, crc))

    def close(self):
        directory = self.offset
        for name, start, size, crc in self.entries:
            extra = b""
            if start >= 0xFFFFFFFF:
                extra = struct.pack("<HHQ", 1, 8, start)
                start = 0xFFFFFFFF
            self.write(
                struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 0, 45 if extra else 0, 0, 0, 0, 0, crc, size, size,
                            len(name), len(extra), 0, 0, 0, 0, start) + name + extra
            )
        size, count, end = self.offset - directory, len(self.entries), self.offset
        if directory >= 0xFFFFFFFF or count >= 0xFFFF:
            self.write(struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, count, count, size, directory))
            self.write(struct.pack("<IIQI", 0x07064B50, 0, end, 1))
        self.write(struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, min(count, 0xFFFF), min(count, 0xFFFF), size,
                               min(directory, 0xFFFFFFFF), 0))
        os.fsync(self.file.fileno())
        self.file.close()


def integer(n):
    if n < 1 << 8:
        return b"K" + struct.pack("<B", n)  # BININT1
    if n < 1 << 16:
        return b"M" + struct.pack("<H", n)  # BININT2
    if n < 1 << 31:
        return b"J" + struct.pack("<i", n)  # BININT
    digits = n.to_bytes(n.bit_length() // 8 + 1, "little")
    return b"\x8a" + struct.pack("<B", len(digits)) + digits  # LONG1


def text(s):
    return b"X" + struct.pack("<I", len(s)) + s.encode()  # BINUNICODE


def integers(values):
    items = b"".join(integer(n) for n in values)
    return items + (b"\x85" if len(values) == 1 else b"\x86")  # TUPLE1, TUPLE2


def pickle_of(tensors):
    """The pickle of {key: tensor}: each is _rebuild_tensor_v2 of a storage of its own, named by a persistent id."""
    out = b"\x80\x02}("  # PROTO 2, EMPTY_DICT, MARK
    for number, (key, shape) in enumerate(tensors):
        strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
        storage = (b"(" + text("storage") + b"ctorch\nHalfStorage\n" + text(str(number)) + text("cpu")
                   + integer(math.prod(shape)) + b"tQ")  # TUPLE, BINPERSID
        out += text(key) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + integer(0) + integers(shape)
        out += integers(strides) + b"\x89ccollections\nOrderedDict\n)RtR"  # NEWFALSE, an empty OrderedDict, call
    return out + b"u."  # SETITEMS, STOP


def write_shard(path, tensors, values):
    archive = TorchZip(path, "archive")
    pickle = pickle_of(tensors)
    archive.add("data.pkl", [pickle], len(pickle))
    for number, (key, shape) in enumerate(tensors):
        archive.add(f"data/{number}", values.pieces(key, shape), bytes_of(shape))
    archive.add("version", [b"3\n"], 2)
    archive.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=SIZES, help="which OPT")
    parser.add_argument("folder", help="where to write it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lm-head", action="store_true", help="write lm_head.weight too")
    parser.add_argument("--shard-gb", type=float, default=10, help="largest shard in GB (the hub's is 10)")
    args = parser.parse_args()

    config = config_of(args.size)
    shards = deal_to_shards(tensors_of(config, args.lm_head), args.shard_gb * 1e9)
    values = Values(config["num_hidden_layers"], args.seed)
    os.makedirs(args.folder, exist_ok=True)
    weight_map, total = {}, 0
    for number, tensors in enumerate(shards, 1):
        name = "pytorch_model.bin"
        if len(shards) > 1:
            name = f"pytorch_model-{number:05}-of-{len(shards):05}.bin"
        size = sum(bytes_of(shape) for _, shape in tensors)
        print(f"{name}: {len(tensors)} tensors, {size / 1e9:.2f} GB", file=sys.stderr)
        write_shard(os.path.join(args.folder, name), tensors, values)
        weight_map.update((key, name) for key, _ in tensors)
        total += size
    if len(shards) > 1:
        with open(os.path.join(args.folder, "pytorch_model.bin.index.json"), "w") as index:
            json.dump({"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}, index, indent=2)
    with open(os.path.join(args.folder, "config.json"), "w") as file:
        json.dump(config, file, indent=2)


if __name__ == "__main__":
    main()
