#!/usr/bin/env python3
"""Lists every tensor of the checkpoints here, read with nothing but Python's own json, zipfile and pickle.

Writes tensors.txt, one line a tensor: file, name, dtype, shape, CRC-32 of its bytes. The checkpoint readers
are tested against it. Run it again after changing a bundled checkpoint: python3 list_tensors.py > tensors.txt
"""
import collections
import io
import json
import math
import pathlib
import pickle
import struct
import zipfile
import zlib

HERE = pathlib.Path(__file__).parent
DTYPES = {"F16": ("f16", 2), "BF16": ("bf16", 2), "F32": ("f32", 4)}
STORAGES = {"HalfStorage": "F16", "BFloat16Storage": "BF16", "FloatStorage": "F32"}


def line(path, name, dtype, shape, data):
    shape = ",".join(str(size) for size in shape)
    print(path.relative_to(HERE), name, DTYPES[dtype][0], shape or "-", f"{zlib.crc32(data):08x}")


def list_safetensors(path):
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    for name, tensor in sorted(header.items()):
        begin, end = tensor["data_offsets"]
        line(path, name, tensor["dtype"], tensor["shape"], data[8 + length + begin:8 + length + end])


class Unpickler(pickle.Unpickler):
    def persistent_load(self, pid):
        return pid

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *rest: (storage, offset, size, stride)
        if module == "torch":
            return name
        raise ValueError(f"{module}.{name}")


def list_torch(path):
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        root = pickles[0].removesuffix("data.pkl")
        tensors = Unpickler(io.BytesIO(archive.read(pickles[0]))).load()
        for name, ((_, storage, key, _, _), offset, size, stride) in sorted(tensors.items()):
            dtype = STORAGES[storage]
            width = DTYPES[dtype][1]
            assert list(stride) == [math.prod(size[i + 1:]) for i in range(len(size))]
            data = archive.read(f"{root}data/{key}")
            line(path, name, dtype, size, data[offset * width:(offset + math.prod(size)) * width])


for checkpoint in sorted(HERE.rglob("*.safetensors")):
    list_safetensors(checkpoint)
for checkpoint in sorted(HERE.rglob("*.bin")):
    list_torch(checkpoint)
