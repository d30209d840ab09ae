"""Mutations of files, and how a reader is held to its word over them: a value or a typed error.

`make test` tries `TRIES` mutations of each file and `make fuzz` 10,000 (XRAY_FUZZ), in which case
what they took is added to build/fuzz.md. Mutation number i is a function of the seed and i alone.
"""

from __future__ import annotations

import os
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from xray_addon.errors import XRayError

TRIES = int(os.environ.get("XRAY_FUZZ", "200"))
REPORT = Path(__file__).parent.parent / "build" / "fuzz.md"
# What a mutation may cost, beyond what the process has taken before: KiB, s.
MEMORY, SECONDS = 400 << 10, 10.0

# What stands for numbers, sizes and nesting in the formats that are read here.
_WORDS = [
    b"NaN", b"Infinity", b"-1", b"1e999", b"99999999999", b"null", b"true", b'""', b"[" * 99,
    b'{"a":' * 99, b"../../etc", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0",
    b"4294967295", b"&a [*a,*a]", b"element", b"|O", b"<f8", b"(2147483647,)",
]  # fmt: skip


def mutated(content: bytes, number: int, seed: int = 0) -> bytes:
    """`content` with one to six changes: bits, bytes, words, pieces moved, doubled, cut."""
    random = np.random.default_rng([seed, number])
    data = bytearray(content)
    for _ in range(int(random.integers(1, 7))):
        size = max(len(data), 1)
        at = int(random.integers(size))
        # Headers and directories are at the ends.
        if random.random() < 0.5:
            at = int(random.choice([at % 200, max(size - 1 - at % 400, 0)])) % size
        span = int(random.integers(1, max(size // 8, 2)))
        kind = int(random.integers(7))
        if kind == 0 and data:
            data[at] ^= 1 << int(random.integers(8))
        elif kind == 1 and data:
            data[at] = int(random.integers(256))
        elif kind == 2:
            word = _WORDS[int(random.integers(len(_WORDS)))]
            data[at : at + len(word) * int(random.integers(2))] = word
        elif kind == 3:
            del data[at : at + span]
        elif kind == 4:
            data[at:at] = data[at : at + span]
        elif kind == 5:
            other = int(random.integers(size))
            data[at : at + 8] = data[other : other + 8]
        else:
            del data[int(random.integers(size)) :]
    return bytes(data)


def fuzz(name: str, content: bytes, read: Callable[[bytes], object]) -> None:
    """Read `TRIES` mutations of `content`; `read` may raise XRayError and nothing else."""
    slowest, refused = 0.0, 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is odd and yet is read
        read(content)
        before = _peak()
        for number in range(TRIES):
            data = mutated(content, number)
            started = time.monotonic()
            try:
                read(data)
            except XRayError:
                refused += 1
            except BaseException as error:
                raise AssertionError(f"{name}: mutation {number} raised {error!r}") from error
            taken = time.monotonic() - started
            slowest = max(slowest, taken)
            assert taken < SECONDS, f"{name}: mutation {number} took {taken:.1f} s"
            grown = _peak() - before
            assert grown < MEMORY, f"{name}: mutation {number} took {grown >> 10} MB"
    if "XRAY_FUZZ" in os.environ:
        REPORT.parent.mkdir(exist_ok=True)
        with REPORT.open("a", encoding="utf-8") as stream:
            stream.write(
                f"| {name} | {TRIES:,} | {refused:,} | 0 | {(_peak() - before) >> 10} MB "
                f"| {slowest * 1000:.0f} ms |\n"
            )


def _peak() -> int:
    """KiB that this process has taken at most."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak
