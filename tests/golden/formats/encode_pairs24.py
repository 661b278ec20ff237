#!/usr/bin/env python3
"""Encodes small matrices as pairs24, following only the page kernels/format/pairs24/FORMAT.md; plain and slow on purpose.

Writes pairs24_cases.txt, one line a case (format, case, rows, cols, bytes, CRC-32 of the bytes), and the bytes
themselves where they are few. Run it again after changing the page: python3 encode_pairs24.py
"""
import pathlib
import struct
import zlib

from encode_csl import random_mask, table_bytes, value

HERE = pathlib.Path(__file__).parent
KEEP_BYTES = 5000
FIXED_BYTES = 16 + 4 * 704
MASKS = 0xFFFF
MOST_ENTRIES = 16

# name: rows, cols, whether an element is nonzero
CASES = {
    "two_rows": (2, 3, lambda r, c: (r, c) in ((0, 1), (1, 0), (1, 2))),
    "edge": (20, 70, random_mask(35)),
    "one_row": (1, 300, random_mask(35)),
    "one_column": (150, 1, random_mask(35)),
    "empty": (65, 257, lambda r, c: False),
    "full": (64, 256, lambda r, c: True),
    "column_pairs": (64, 256, lambda r, c: c % 4 < 2),
    "one_lane": (64, 256, lambda r, c: r % 8 == 3 and c // 4 % 4 == 1),
    "first_steps": (64, 256, lambda r, c: c < 64),
    "last_step": (64, 256, lambda r, c: c >= 224),
    "half": (64, 512, random_mask(50)),
    "fifth": (130, 300, random_mask(20)),
    "tenth": (128, 512, random_mask(10)),
    "few": (128, 256, random_mask(1)),
    "both_kinds": (64, 512, lambda r, c: random_mask(50 if c < 256 else 10)(r, c)),
    "entries_16": (64, 256, lambda r, c: r // 16 == 1 and c < 3),
    "entries_17": (64, 256, lambda r, c: r // 16 == 1 and (c < 3 or (r, c) == (16, 3))),
    "full_quads": (64, 256, lambda r, c: r % 16 < 3 and c // 4 % 8 == 5),
    "last_quad": (64, 256, lambda r, c: r == 63 and c >= 252),
}


def split(quad):
    """The four values' columns of the pair, what is left in columns 0 and 1."""
    places = [c for c in range(4) if quad[c]]
    left = [0, 0]
    if not places:
        pair = (0, 1)
    elif len(places) == 1:
        pair = (2, 3) if places == [3] else (places[0], 3)
    else:
        pair = tuple(places[-2:])
        for c in places[:-2]:
            left[c] = quad[c]
    return pair, left


class Strip:
    def __init__(self, values):
        """`values`: 16 rows of 256."""
        self.p1, self.p2 = [0] * 32, [0] * 32
        self.entries = []  # (column, row, value)
        self.metadata = [[0] * 4 for _ in range(32)]
        self.steps = [[[] for _ in range(8)] for _ in range(32)]  # words of each lane and step
        self.left = [[[] for _ in range(8)] for _ in range(32)]  # what is left of them
        for lane in range(32):
            for t in range(8):
                for r in range(4):
                    row, quad = lane // 4 + 8 * (r % 2), 4 * (r // 2) + lane % 4
                    four = values[row][32 * t + 4 * quad:32 * t + 4 * quad + 4]
                    (i0, i1), left = split(four)
                    at = 4 * (row % 8) + quad // 4 + 2 * (t % 2)
                    self.metadata[at][t // 2] |= (i0 + 4 * i1) << 16 * (row // 8) + 4 * (quad % 4)
                    if four[i0] or four[i1]:
                        self.p1[lane] |= 1 << 4 * t + r
                        self.steps[lane][t].append((four[i0], four[i1]))
                    if any(left):
                        self.p2[lane] |= 1 << 4 * t + r
                        self.left[lane][t].append(tuple(left))
                        self.entries += [(32 * t + 4 * quad + i, row, left[i]) for i in (0, 1) if left[i]]
        self.entries.sort()

    def put_left_into_lists(self):
        for steps, left in zip(self.steps, self.left):
            for t in range(8):
                steps[t] += left[t]

    def ahead(self, lane, step):
        return sum(map(len, self.steps[lane][:step]))

    def count(self, lane):
        return self.ahead(lane, 8)


def lay_out(strip, offsets, level):
    """(step, offset, target) of each lane, heights."""
    jumps, heights, tails = {}, list(offsets), []
    for lane in range(32):
        o, n = offsets[lane], strip.count(lane)
        step, tail = 7, 0
        if level is not None and o + n > level + 1:
            step = next((s for s in range(8) if o + strip.ahead(lane, s) >= level), 7)
            tail = n - strip.ahead(lane, step)
        if tail == 0:
            step = 7
        jumps[lane] = (step, o, (o + strip.ahead(lane, step)) * 32 + lane)
        heights[lane] = o + n - tail
        if tail:
            tails.append((-tail, lane))
    for minus_tail, lane in sorted(tails):
        column = heights.index(min(heights))
        jumps[lane] = (jumps[lane][0], jumps[lane][1], heights[column] * 32 + column)
        heights[column] -= minus_tail
    return jumps, heights


def cost(heights, is_last):
    top = max(heights)
    holes = sum(max(0, top - 3 - h) for h in heights)
    words = (top - 1) * 32 + max(c for c in range(32) if heights[c] == top) + 1 if top else 0
    return (0 if is_last else holes, words)


def levelled(strips):
    heights, placed, words = [0] * 32, [], 0
    for s, strip in enumerate(strips):
        base = max(0, max(heights) - 3)
        offsets = [max(0, h - base) for h in heights]
        total = sum(offsets) + sum(strip.count(lane) for lane in range(32))
        levels = [None] if total >= 2048 else [total // 32 + 1 - i for i in range(4)]
        choices = [lay_out(strip, offsets, level) for level in levels]
        jumps, above = min(choices, key=lambda choice: cost(choice[1], s == 3))  # the first one in a tie
        placed.append((base, jumps))
        heights = [base + h for h in above]
        words = base * 32 + cost(above, True)[1]
    return placed, words


def whole(strips):
    base, placed = 0, []
    for strip in strips:
        jumps, heights = lay_out(strip, [0] * 32, None)
        placed.append((base, jumps))
        base += max(heights)
    return placed, base * 32


def encode_unit(values):
    strips = [Strip(values[16 * s:16 * s + 16]) for s in range(4)]
    left = b""  # masks or entries
    if all(len(strip.entries) <= MOST_ENTRIES for strip in strips):
        counts = [len(strip.entries) for strip in strips]
        for strip in strips:
            words = [value + (col << 16) + (row << 24) for col, row, value in strip.entries]
            words += [0] * (-len(words) % 4)
            left += struct.pack(f"<{len(words)}I", *words)
    else:
        counts = [MASKS] * 4
        for strip in strips:
            strip.put_left_into_lists()
            left += struct.pack("<32I", *strip.p2)
    placed, num_words = levelled(strips)
    num_words += -num_words % 4
    if num_words > whole(strips)[1]:
        placed, num_words = whole(strips)
    words = [(0, 0)] * num_words
    first = (FIXED_BYTES + len(left)) // 4
    data = b"".join(struct.pack("<HH", first + 32 * base, count) for (base, _), count in zip(placed, counts))
    for strip, (base, jumps) in zip(strips, placed):
        for lane in range(32):
            step, offset, target = jumps[lane]
            assert target < 2048 and offset < 4
            at = lane + 32 * offset
            for t in range(8):
                if t == step:
                    at = target
                for word in strip.steps[lane][t]:
                    assert words[32 * base + at] == (0, 0)
                    words[32 * base + at] = word
                    at += 32
        data += struct.pack("<32I", *strip.p1)
        data += struct.pack("<32H", *(s + 8 * o + 32 * j for s, o, j in (jumps[lane] for lane in range(32))))
        data += b"".join(struct.pack("<4I", *row) for row in strip.metadata)
    assert len(data) == FIXED_BYTES
    return data + left + b"".join(struct.pack("<HH", *word) for word in words)


def encode(rows, cols, is_nonzero):
    def element(r, c):
        return value(r, c) if r < rows and c < cols and is_nonzero(r, c) else 0

    units = [encode_unit([[element(r0 + r, c0 + c) for c in range(256)] for r in range(64)])
             for r0 in range(0, rows, 64) for c0 in range(0, cols, 256)]
    return b"".join(units) + table_bytes(map(len, units))


def main():
    lines = []
    for name, (rows, cols, is_nonzero) in CASES.items():
        data = encode(rows, cols, is_nonzero)
        lines.append(f"pairs24 {name} {rows} {cols} {len(data)} {zlib.crc32(data):08x}\n")
        if len(data) <= KEEP_BYTES:
            (HERE / f"pairs24_{name}.bin").write_bytes(data)
    (HERE / "pairs24_cases.txt").write_text("".join(lines))


if __name__ == "__main__":
    main()
