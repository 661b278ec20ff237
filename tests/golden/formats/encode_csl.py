#!/usr/bin/env python3
"""Encodes small matrices as tiled_csl, bank_csl and in Flash-LLM's files, following only the pages
kernels/format/tiled_csl/FORMAT.md and kernels/format/bank_csl/FORMAT.md; plain and slow on purpose.

Writes csl_cases.txt, one line a case (format, case, rows, cols, bytes, CRC-32 of the bytes), the bytes
themselves where they are few, and flash_llm.*.bin. Run it again after changing one of the pages:
python3 encode_csl.py
"""
import pathlib
import struct
import zlib

HERE = pathlib.Path(__file__).parent
KEEP_BYTES = 4096


def noise(r, c):
    """32 bits for each element; tests/kernels/format_golden.h has the same function."""
    h = (r * 1000003 + c * 10007 + 101) * 2654435761 % 2**32
    h ^= h >> 15
    h = h * 2246822519 % 2**32
    return h ^ h >> 13


def value(r, c):
    """A finite fp16 number, never zero."""
    h = noise(r, c)
    return (h >> 31) << 15 | 0x2C00 | (h >> 16 & 0x3FF)


def random_mask(percent):
    return lambda r, c: noise(r, c) % 0x10000 * 100 < percent * 0x10000


# name: rows, cols, whether an element is nonzero
CASES = {
    "edge": (20, 70, random_mask(35)),
    "full_and_empty": (130, 70, lambda r, c: r // 128 != c // 64),
    "nine_rows": (9, 64, lambda r, c: True),
    "far_rows": (256, 64, lambda r, c: r % 32 == 31),
    "full": (256, 64, lambda r, c: True),
    "column_pairs": (256, 64, lambda r, c: c % 4 < 2),
    "half": (256, 128, random_mask(50)),
    "fifth": (300, 140, random_mask(20)),
    "tenth": (512, 192, random_mask(10)),
    "twentieth": (512, 128, random_mask(5)),
    "few": (256, 128, random_mask(1)),
}


def place_of(r, c):
    return r * 64 + (c ^ (r % 8 << 3))


def bank_of(place):
    return place // 2 % 32


def tiles_of(rows, cols, is_nonzero, tile_rows):
    """Each tile as {place: value} of its nonzeros; and whether it is the last one of its rows."""
    for r0 in range(0, rows, tile_rows):
        for c0 in range(0, cols, 64):
            tile = {}
            for r in range(min(tile_rows, rows - r0)):
                for c in range(min(64, cols - c0)):
                    if is_nonzero(r0 + r, c0 + c):
                        tile[place_of(r, c)] = value(r0 + r, c0 + c)
            yield tile, c0 + 64 >= cols


# --- tiled_csl ---------------------------------------------------------------------------------------------


def pad(queues, tile, tile_rows):
    while sum(map(len, queues)) % 4 != 0:
        zeros = [[p for p in range(tile_rows * 64) if bank_of(p) == b and p not in tile][:1] for b in range(32)]
        bank = min((b for b in range(32) if zeros[b]), key=lambda b: (len(queues[b]), b))
        queues[bank].append((0, zeros[bank][0]))


def draw(queues, n, cap, floor):
    while True:
        left = [len(queue) for queue in queues]
        claimed = [0] * 32
        for _ in range(n):
            banks = [b for b in range(32) if claimed[b] < cap and left[b] > floor]
            if not banks:
                break
            bank = max(banks, key=lambda b: (left[b], -b))
            claimed[bank] += 1
            left[bank] -= 1
        else:
            return [queues[b].pop() for b in range(32) for _ in range(claimed[b])]
        cap += 1


def order(queues):
    vectors = sum(map(len, queues)) // 4
    groups, rest = divmod(vectors, 32)
    words = [None] * (vectors * 4)
    if rest > 0:
        for v in range(4):
            for lane, word in enumerate(draw(queues, rest, 1, 0)):
                words[groups * 128 + lane * 4 + v] = word
    even = min(map(len, queues))
    for s in range(even, 4 * groups):
        surplus = max(map(len, queues)) - even
        cap = max(2, -(-surplus // (4 * groups - s)))
        for lane, word in enumerate(draw(queues, 32, cap, even)):
            words[s // 4 * 128 + lane * 4 + s % 4] = word
    for s in range(even):
        for lane in range(32):
            words[s // 4 * 128 + lane * 4 + s % 4] = queues[lane][s]
    return words


def word_bytes(words, scale=2):
    return b"".join(struct.pack("<HH", v, scale * place) for v, place in words)


def table_bytes(sizes):
    table, end = struct.pack("<I", 0), 0
    for size in sizes:
        assert size % 16 == 0
        end += size // 16
        table += struct.pack("<I", end)
    return table + bytes(-len(table) % 16)


def encode_tiled(rows, cols, is_nonzero):
    tiles = []
    for tile, _ in tiles_of(rows, cols, is_nonzero, 128):
        queues = [[] for _ in range(32)]
        for place in sorted(tile):
            queues[bank_of(place)].append((tile[place], place))
        pad(queues, tile, 128)
        tiles.append(word_bytes(order(queues)))
    return b"".join(tiles) + table_bytes(map(len, tiles))


# --- bank_csl ----------------------------------------------------------------------------------------------


def slots_of(kind, nonzero_rows, slots):
    """The rows of the slots."""
    rows, before = [], -1
    if kind == "I8":
        rows = nonzero_rows[:slots]
    else:
        for n in nonzero_rows:
            needed = list(range(before + 16, n, 16)) + [n]
            assert len(needed) == 1 + (n - before - 1) // 16
            if len(rows) + len(needed) > slots:
                break
            rows, before = rows + needed, n
    for r in range(256):
        if len(rows) >= slots:
            break
        if r not in rows and r not in nonzero_rows:
            rows = rows + [r]
    return sorted(rows)


def encode_bank_tile(tile):
    lists = [sorted(place // 64 for place in tile if place % 64 == p) for p in range(64)]

    def layout(kind, slots):
        rows = [slots_of(kind, nonzeros, slots) if slots else [] for nonzeros in lists]
        surplus = [[r for r in nonzeros if r not in has] for nonzeros, has in zip(lists, map(set, rows))]
        size = {"CSL": 0, "D4": 160, "I8": 192}[kind] * slots + 16 * -(-sum(map(len, surplus)) // 4)
        return size, kind, slots, rows, surplus

    choices = [layout("CSL", 0)]
    choices += [layout(kind, slots) for kind in ("D4", "I8") for slots in range(8, 257, 8)]
    _, kind, slots, rows, surplus = min(choices, key=lambda choice: choice[0])  # the first one in a tie

    values, indices = b"", b""
    for step in range(0, slots, 8):
        for p in range(64):
            eight = rows[p][step:step + 8]
            values += struct.pack("<8H", *(tile.get(r * 64 + p, 0) for r in eight))
            if kind == "I8":
                indices += bytes(eight)
            else:
                before = ([-1] + rows[p])[step:step + 8]
                deltas = [r - b - 1 for r, b in zip(eight, before)]
                assert all(0 <= d < 16 for d in deltas)
                indices += struct.pack("<I", sum(d << 4 * i for i, d in enumerate(deltas)))
    queues = [[] for _ in range(32)]
    for p in range(64):
        queues[p // 2] += [(tile[r * 64 + p], r * 64 + p) for r in surplus[p]]
    pad(queues, tile, 256)
    words = order(queues)
    return {"CSL": 0, "D4": 1, "I8": 2}[kind], slots, len(words), values + indices + word_bytes(words)


def encode_bank(rows, cols, is_nonzero):
    parts = [(encode_bank_tile(tile), is_last) for tile, is_last in tiles_of(rows, cols, is_nonzero, 256)]
    sizes = [16 + len(body) for (_, _, _, body), _ in parts]
    data = b""
    for i, ((kind, slots, words, body), is_last) in enumerate(parts):
        follows = 0 if is_last else sizes[i + 1] // 16
        data += struct.pack("<BBHHHII", kind, 0, slots, words, 0, sizes[i] // 16, follows) + body
    return data + table_bytes(sizes)


# --- Flash-LLM's files -------------------------------------------------------------------------------------


def write_flash_llm(rows, cols, is_nonzero):
    """Greedy order, the tail first: every word from the fullest bank."""
    data, offsets = b"", [0]
    for tile, _ in tiles_of(rows, cols, is_nonzero, 128):
        queues = [[] for _ in range(32)]
        for place in sorted(tile):
            queues[bank_of(place)].append((tile[place], place))
        pad(queues, tile, 128)
        count = sum(map(len, queues))
        full = count // 128 * 128
        drawn = [max(queues, key=len).pop() for _ in range(count)]
        words = [None] * count
        for i, word in enumerate(drawn[:count - full]):
            lanes = (count - full) // 4
            words[full + i % lanes * 4 + i // lanes] = word
        for i, word in enumerate(drawn[count - full:]):
            words[i // 128 * 128 + i % 32 * 4 + i % 128 // 32] = word
        data += word_bytes(words, scale=1)
        offsets.append(len(data) // 16)
    offsets.append(offsets[-1])
    (HERE / "flash_llm.NZWeights.bin").write_bytes(data)
    (HERE / "flash_llm.TileOffsets.bin").write_bytes(struct.pack(f"<{len(offsets)}i", *offsets))


def main():
    lines = []
    for name, (rows, cols, is_nonzero) in CASES.items():
        for kind, encode in (("tiled_csl", encode_tiled), ("bank_csl", encode_bank)):
            data = encode(rows, cols, is_nonzero)
            lines.append(f"{kind} {name} {rows} {cols} {len(data)} {zlib.crc32(data):08x}\n")
            if len(data) <= KEEP_BYTES:
                (HERE / f"{kind}_{name}.bin").write_bytes(data)
    (HERE / "csl_cases.txt").write_text("".join(lines))
    write_flash_llm(128, 192, lambda r, c: c // 64 != 1 and random_mask(6)(r, c))


if __name__ == "__main__":
    main()
