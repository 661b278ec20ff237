#!/usr/bin/env python3
"""How fast `sluice convert` is, against what the disk does in the same run.

  bench_convert.py SLUICE FOLDER [--rounds 3]    # FOLDER: a checkpoint, e.g. from make_opt_checkpoint.py

Each round measures plain O_DIRECT loops (8 threads, 4 MiB blocks) that read the checkpoint's largest file, write a
file beside it, and do both at once, then converts the folder and removes the store. Conversion reads and writes every
byte, so where source and store share one disk its bound is the slower side of the loops that run at once; where they do
not, the slower of the two alone.
"""

import argparse
import mmap
import os
import pathlib
import shutil
import statistics
import subprocess
import threading
import time

BLOCK = 4 << 20
THREADS = 8
SECONDS = 4.0


def loop(path, size, write, stop, counts, index):
    fd = os.open(path, os.O_DIRECT | (os.O_WRONLY if write else os.O_RDONLY))
    buffer = mmap.mmap(-1, BLOCK)
    buffer.write(os.urandom(1 << 16) * (BLOCK >> 16))
    offset = index * BLOCK
    while not stop.is_set():
        if offset + BLOCK > size:
            offset = index * BLOCK
        counts[index] += os.pwritev(fd, [buffer], offset) if write else os.preadv(fd, [buffer], offset)
        offset += THREADS * BLOCK
    os.close(fd)


failures = []
threading.excepthook = failures.append


def rates(source, target, size, read, write):
    """GB/s read and written by loops that run together."""
    stop, threads, counts = threading.Event(), [], {}
    for name, path, on in (("read", source, read), ("write", target, write)):
        counts[name] = [0] * THREADS
        if on:
            for i in range(THREADS):
                threads.append(threading.Thread(target=loop, args=(path, size, name == "write", stop, counts[name], i)))
    started = time.monotonic()
    for thread in threads:
        thread.start()
    time.sleep(SECONDS)
    stop.set()
    for thread in threads:
        thread.join()
    elapsed = time.monotonic() - started
    if failures:
        raise failures[0].exc_value
    return [sum(counts[name]) / elapsed / 1e9 for name in ("read", "write")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sluice")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    source = max(args.folder.iterdir(), key=lambda path: path.stat().st_size)
    total = sum(path.stat().st_size for path in args.folder.iterdir())
    size = min(source.stat().st_size, 4 << 30) // BLOCK * BLOCK
    target, store = args.folder.parent / "bench-convert.raw", args.folder.parent / "bench-convert.store"
    if size < THREADS * BLOCK:
        parser.error(f"{source} has {source.stat().st_size} bytes; at least {THREADS * BLOCK} are needed")
    results = []
    try:
        fd = os.open(target, os.O_CREAT | os.O_WRONLY, 0o600)
        os.posix_fallocate(fd, 0, size)
        os.close(fd)
        rates(source, target, size, False, True)  # the first write of fresh blocks is not what is measured
        for number in range(args.rounds):
            alone = min(rates(source, target, size, True, False)[0], rates(source, target, size, False, True)[1])
            together = min(rates(source, target, size, True, True))
            started = time.monotonic()
            subprocess.run([args.sluice, "convert", str(args.folder), str(store)], check=True, stderr=subprocess.DEVNULL,
                           stdout=subprocess.DEVNULL)
            convert = total / (time.monotonic() - started) / 1e9
            shutil.rmtree(store)
            results.append((alone, together, convert))
            print(f"round {number + 1}: min(read, write) alone {alone:.2f}, at once {together:.2f}, "
                  f"convert {convert:.2f} GB/s", flush=True)
    finally:
        target.unlink(missing_ok=True)
        shutil.rmtree(store, ignore_errors=True)
    alone, together = (statistics.median(convert / rate for rate, convert in ((r[i], r[2]) for r in results))
                       for i in (0, 1))
    print(f"convert over the slower side of loops at once: {together:.0%}; of loops alone: {alone:.0%}")


if __name__ == "__main__":
    main()
