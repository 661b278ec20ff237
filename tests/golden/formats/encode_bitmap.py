#!/usr/bin/env python3
"""Writes bitmap.txt: bitmaps as kernels/format/bitmap/FORMAT.md describes them, by an encoder of its own."""

import pathlib
import struct

from numbers_16 import BF16, F16, GoldenFile, edge_matrix, symmetric_code, symmetric_scale, words

BITS = {"bitmap": 16, "bitmap_int8": 8, "bitmap_int4": 4}


def pad16(data):
    return data + bytes(-len(data) % 16)


def encode_chunk(segments, bits, dtype):
    masks, scales, nonzeros = [], [], []
    for segment in segments + [[]] * (32 - len(segments)):
        columns = [j for j, v in enumerate(segment) if v & 0x7FFF]
        masks.append(sum(1 << j for j in columns).to_bytes(16, "little"))
        found = [segment[j] for j in columns]
        if bits == 16:
            nonzeros += found
            continue
        limit, bias = (127, 128) if bits == 8 else (7, 8)
        values = [dtype.value(v) for v in found]
        scale = symmetric_scale(dtype, max((abs(v) for v in values), default=0), limit)
        scales.append(scale)
        nonzeros += [symmetric_code(v, dtype.value(scale), limit) + bias for v in values]
    if bits == 16:
        payload = words(nonzeros)
    elif bits == 8:
        payload = bytes(nonzeros)
    else:
        halves = nonzeros + [0] * (len(nonzeros) % 2)
        payload = bytes(low | high << 4 for low, high in zip(halves[::2], halves[1::2]))
    return pad16(b"".join(masks) + words(scales) + payload)


def encode(rows, encoding, dtype):
    segments = [row[c : c + 128] for row in rows for c in range(0, len(row), 128)]
    chunks = [encode_chunk(segments[g : g + 32], BITS[encoding], dtype) for g in range(0, len(segments), 32)]
    starts = [0]
    for chunk in chunks:
        starts.append(starts[-1] + len(chunk) // 16)
    return b"".join(chunks) + pad16(struct.pack(f"<{len(starts)}I", *starts))


def main():
    golden = GoldenFile()
    example = [[0] * 130]
    for column, value in ((0, 0.5), (9, -1.0), (129, 0.25)):
        example[0][column] = F16.bits(value)
    golden.matrix("example", F16, example)
    golden.stored("bitmap_int4", encode(example, "bitmap_int4", F16))
    for dtype in (F16, BF16):
        cases = {
            "edges": edge_matrix(dtype, 9, 131, 1),
            "empty": [[0, 0x8000]] * 2,
            "full": [[dtype.bits(c / 8 - 1.6) for c in range(13)]] * 2,
            "two_chunks": [[dtype.bits((r % 5 - 2) / 4), dtype.bits(r % 3)] for r in range(34)],
        }
        for name, rows in cases.items():
            golden.matrix(name, dtype, rows)
            for encoding in BITS:
                golden.stored(encoding, encode(rows, encoding, dtype))
    golden.write(pathlib.Path(__file__).with_name("bitmap.txt"))


if __name__ == "__main__":
    main()
