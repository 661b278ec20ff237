"""16-bit numbers, test matrices and the golden files' lines, for encode_bitmap.py and encode_quantised.py.

Python's floats are fp64; fp32 and the 16-bit types are reached by rounding them, ties to even.
"""

import itertools
import math
import random
import struct


def fp32(x):
    try:
        return struct.unpack("<f", struct.pack("<f", x))[0]
    except OverflowError:
        return math.copysign(math.inf, x)


class F16:
    name = "f16"
    max = 65504.0
    tiny = 2.0**-24

    @staticmethod
    def bits(x):
        """Bits of the nearest value; infinity for what is beyond the range."""
        try:
            return struct.unpack("<H", struct.pack("<e", x))[0]
        except OverflowError:
            return 0xFC00 if x < 0 else 0x7C00

    @staticmethod
    def value(bits):
        return struct.unpack("<e", struct.pack("<H", bits))[0]


class BF16:
    name = "bf16"
    max = 255 * 2.0**120
    tiny = 2.0**-133

    @staticmethod
    def bits(x):
        word = struct.unpack("<I", struct.pack("<f", x))[0] if abs(x) < 3.4e38 else 0x7F800000
        upper, lower = word >> 16, word & 0xFFFF
        return upper + (1 if lower > 0x8000 or (lower == 0x8000 and upper & 1) else 0)

    @staticmethod
    def value(bits):
        return struct.unpack("<f", struct.pack("<I", bits << 16))[0]


def symmetric_scale(dtype, magnitude, limit):
    """Bits of the scale; kernels/format/quantised/FORMAT.md, steps 1 to 3 of the symmetric rule."""
    if magnitude == 0:
        return 0
    scale = dtype.bits(fp32(magnitude / limit))
    if magnitude > (limit + 0.5) * dtype.value(scale):
        scale += 1
    if math.isinf(dtype.value(dtype.bits(limit * dtype.value(scale)))):
        scale -= 1
    return scale


def symmetric_code(value, scale, limit):
    if scale == 0:
        return 0
    return max(-limit, min(limit, round(fp32(value / scale))))  # round() takes ties to even


def edge_matrix(dtype, rows, cols, seed):
    """Rows of every kind that the rules mention; no negative zero is left as such by a format."""
    rng = random.Random(seed)
    big, tiny = dtype.max, dtype.tiny
    kinds = [
        lambda c: rng.gauss(0, 0.05),
        lambda c: 0.0 if rng.random() < 0.7 else rng.gauss(0, 1),
        lambda c: 0.0 if c < 64 else -0.0 if c < 128 else 1.0,
        lambda c: [3.0, -0.375, big][min(c // 64, 2)],
        lambda c: rng.choice([big, -big, big / 2, 1.0]),
        lambda c: tiny * rng.randrange(-4, 5) if c < 64 else tiny * rng.randrange(150, 200),
        lambda c: (c % 17 - 8) * 0.25,
        lambda c: big if c == 5 else tiny,
        lambda c: 1.0 if c == cols - 1 else 0.0,
    ]
    return [[dtype.bits(kinds[r % len(kinds)](c)) for c in range(cols)] for r in range(rows)]


def words(values):
    return b"".join(struct.pack("<H", v) for v in values)


def to_text(data):
    """Bytes in hex; four or more equal ones as the byte, "*", how many of them, and a comma."""
    runs = itertools.groupby(data)
    counted = ((f"{byte:02x}", len(list(run))) for byte, run in runs)
    return "".join(f"{byte}*{n}," if n >= 4 else byte * n for byte, n in counted)


class GoldenFile:
    """Lines `matrix NAME DTYPE ROWS COLS VALUES` and, about the matrix above, `stored ENCODING BYTES`."""

    def __init__(self):
        self.lines = []

    def matrix(self, name, dtype, rows):
        values = words([v for row in rows for v in row])
        self.lines.append(f"matrix {name} {dtype.name} {len(rows)} {len(rows[0])} {to_text(values)}")

    def stored(self, encoding, data):
        self.lines.append(f"stored {encoding} {to_text(data)}")

    def write(self, path):
        path.write_text("\n".join(self.lines) + "\n")
