#!/usr/bin/env python3
"""Turns what `sluice bench spmm --csv FILE` measured into rows of kernels/ops/linear_paths_measured.cc.

usage: scripts/linear_paths.py DEVICE FILE...     DEVICE as the driver names it, or how that name begins

For every format and sparsity the product of least time at each number of rows, as geometric mean over the shapes that all
candidates were measured at; with more rows the choice, a kernel or expansion, stays while it is within 3 % of that. A fused
kernel takes more rows than it was measured with in several runs. One call for each class of sizes: the rows say the
smallest matrix of all files, and those of larger matrices go first in the table.
"""
import csv
import math
import sys
from collections import defaultdict

EXPANSION = "expand+cublaslt"
MOST_ROWS = 1 << 40


def read(files):
    """{(format, sparsity): {product: {n: {shape: us}}}}, {(format, sparsity): bytes}, {format: elements}"""
    times = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    stored = {}
    elements = {}
    for file in files:
        with open(file, newline="") as lines:
            for row in csv.DictReader(lines):
                n = int(row["n"])
                if n == 0 or not row["us"] or float(row["worst_error"]) > 1:
                    continue
                form, shape = row["format"], (int(row["rows"]), int(row["cols"]))
                key = (form, float(row["sparsity"]))
                times[key][row["product"]][n][shape] = float(row["us"])
                stored[key] = max(stored.get(key, 0), float(row["bytes_per_weight"]))
                elements[form] = min(elements.get(form, shape[0] * shape[1]), shape[0] * shape[1])
    return times, stored, elements


def mean(of_shapes, shapes):
    return math.exp(sum(math.log(of_shapes[s]) for s in shapes) / len(shapes))


def winners(products):
    """[(n, product)] in ascending order of n, for all n at which the expansion was measured."""
    found = []
    for n in sorted(products[EXPANSION]):
        candidates = {}
        for product, by_n in products.items():
            most = max(by_n)
            if n in by_n:
                candidates[product] = by_n[n]
            elif n > most:
                candidates[product] = {s: us * math.ceil(n / most) for s, us in by_n[most].items()}
        shapes = set.intersection(*(set(c) for c in candidates.values()))
        if shapes:
            means = {product: mean(times, shapes) for product, times in candidates.items()}
            fastest = min(means, key=means.get)
            before = found[-1][1] if found else fastest
            found.append((n, before if means.get(before, math.inf) <= 1.03 * means[fastest] else fastest))
    return found


def choice(found):
    """[(most rows, kernel)] in ascending order, the last for any number of rows; empty if nothing beats expansion."""
    rows = []
    for n, product in found:
        kernel = "" if product == EXPANSION else product
        if rows and rows[-1][1] == kernel:
            rows.pop()
        rows.append((n, kernel))
    if all(kernel == "" for _, kernel in rows):
        return []
    if rows[-1][1] == "":
        rows.pop()
    return rows + [(MOST_ROWS, "")]  # beyond what was measured, too


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    device = sys.argv[1]
    times, stored, elements = read(sys.argv[2:])
    for form in sorted({f for f, _ in times}):
        keys = sorted((k for k in times if k[0] == form and EXPANSION in times[k]), key=lambda k: stored[k])
        chosen = [choice(winners(times[key])) for key in keys]
        for i, key in enumerate(keys):
            if i + 1 < len(keys) and chosen[i] == chosen[i + 1]:
                continue  # the next one covers it
            # A weight counts to the measured one whose bytes are nearest.
            most_bytes = (stored[key] + stored[keys[i + 1]]) / 2 if i + 1 < len(keys) else 4.0
            rows = chosen[i]
            for n, kernel in rows:
                name = "k" + "".join(part.capitalize() for part in form.split("_"))
                most = "kAnyRows" if n == MOST_ROWS else n
                print(f'    LinearPath{{"{device}", Encoding::{name}, {elements[form]}, {most_bytes:.3f}, {most}, "{kernel}"}},')


main()
