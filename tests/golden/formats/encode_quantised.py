#!/usr/bin/env python3
"""Writes quantised.txt: matrices as kernels/format/quantised/FORMAT.md describes them, by an encoder of its own."""

import math
import pathlib

from numbers_16 import BF16, F16, GoldenFile, edge_matrix, fp32, symmetric_code, symmetric_scale, words

# Bits of a code, columns of a group (None: the row), whether it has a minimum.
ENCODINGS = {
    "int8": (8, None, False),
    "int8_g128": (8, 128, False),
    "int4_g64": (4, 64, True),
    "int4_g128": (4, 128, True),
    "int4_sym_g64": (4, 64, False),
    "int4_sym_g128": (4, 128, False),
}


def encode_symmetric(values, bits, dtype):
    limit, bias = (127, 128) if bits == 8 else (7, 8)
    scale = symmetric_scale(dtype, max(abs(v) for v in values), limit)
    return [symmetric_code(v, dtype.value(scale), limit) + bias for v in values], [scale]


def encode_from_minimum(values, dtype):
    low, high = min(values), max(values)
    if low == high:
        return [0] * len(values), [0, dtype.bits(low)]
    bits = dtype.bits(fp32((high - low) / 15))
    if high > low + 15.5 * dtype.value(bits):
        bits += 1
    if math.isinf(dtype.value(dtype.bits(fp32(15 * dtype.value(bits) + low)))):
        bits -= 1
    scale = dtype.value(bits)
    # Halves stand for an fp32 without an upper bound.
    codes = [round(fp32(fp32(v / 2 - low / 2) / (scale / 2))) for v in values]
    return [max(0, min(15, u)) for u in codes], [bits, dtype.bits(low)]


def encode_row(row, bits, group, has_minimum, dtype):
    values = [dtype.value(v) + 0.0 for v in row]  # negative zero becomes zero
    codes, params = [], []
    for c in range(0, len(values), group or len(values)):
        part = values[c : c + (group or len(values))]
        more = encode_from_minimum(part, dtype) if has_minimum else encode_symmetric(part, bits, dtype)
        codes += more[0]
        params += more[1]
    padding = 0 if has_minimum else 128 if bits == 8 else 8
    chunk = 16 * 8 // bits
    codes += [padding] * (-len(codes) % chunk)
    stored = []
    for c in range(0, len(codes), chunk):  # word j of eight: columns j, j + 8, ... from its lowest bits on
        stored += [sum(codes[c + j + 8 * i] << bits * i for i in range(16 // bits)) for j in range(8)]
    per_group = 2 if has_minimum else 1
    return words(stored), [words(params[i : i + per_group]) for i in range(0, len(params), per_group)]


def encode(rows, encoding, dtype):
    stored = b""
    for first in range(0, len(rows), 128):
        encoded = [encode_row(row, *ENCODINGS[encoding], dtype) for row in rows[first : first + 128]]
        stored += b"".join(c for c, _ in encoded)
        for group in zip(*(p for _, p in encoded)):
            params = b"".join(group)
            stored += params + bytes(-len(params) % 16)
    return stored


def main():
    golden = GoldenFile()
    example = [[F16.bits(v) for v in row] for row in ((-1.0, 0.5, 2.0), (3.0, 3.0, 3.0))]
    golden.matrix("example", F16, example)
    golden.stored("int4_g64", encode(example, "int4_g64", F16))
    for dtype in (F16, BF16):
        edges = edge_matrix(dtype, 9, 131, 2)
        golden.matrix("edges", dtype, edges)
        for encoding in ENCODINGS:
            golden.stored(encoding, encode(edges, encoding, dtype))
    column = [[F16.bits((r % 7 - 3) / 8)] for r in range(130)]
    golden.matrix("two_blocks", F16, column)
    for encoding in ("int8", "int4_g64"):
        golden.stored(encoding, encode(column, encoding, F16))
    golden.write(pathlib.Path(__file__).with_name("quantised.txt"))


if __name__ == "__main__":
    main()
