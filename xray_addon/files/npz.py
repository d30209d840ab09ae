"""An `.npz` written from arrays of which each part is compressed in the way that suits it.

`np.savez_compressed` looks for repetitions everywhere. In the noise of measured values there are
none, and to look for them takes most of the time; there only the frequencies of bytes help.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .deflate import deflated_indices

_npy: Any = np.lib.format  # NumPy's stubs before 2 know no types there
# zlib's levels, of 9. NumPy's 6 takes ten times as long on indices and is for what repeats itself
# over long ranges, and for arrays small enough.
QUICK, LEVEL, THOROUGH = 1, 4, 6
SMALL = 1 << 18  # bytes
# A quick search is good enough where it gives at most so many times the bytes of a longer one.
QUICK_MOST = 1.05
# Where more than this share of the values is that of the value before, a search is of use.
MOST_REPEATED = 0.02
# How much of the values is tried, at each of two places.
TRIED = 1 << 12  # bytes
# Midnight of 1 January 1980, the first time that a zip file can tell.
_TIME, _DATE = 0, 0x21
# Kinds of parts: ascending indices with long runs of consecutive ones; what may repeat itself
# within zlib's window of 32 KB. Others, from 0 on, are values of one sort.
RUNS, REPEATED = -1, -2
# Parts of an array: where each ends, and its kind.
Parts = Sequence[tuple[int, int]]


def npz(arrays: dict[str, NDArray[Any]], parts: Mapping[str, Parts]) -> bytearray:
    """The file that holds `arrays` (one-dimensional or single numbers), each less than 2 GiB.

    parts : of which parts an array consists, by its name; the others are whole.
    """
    content, directory = bytearray(), bytearray()
    for name, values in arrays.items():
        header = io.BytesIO()
        _npy.write_array_header_1_0(header, _npy.header_data_from_array_1_0(values))
        head = header.getvalue()
        body = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
        packed = _deflated(head, body, values, parts.get(name, [(values.size, REPEATED)]))
        file = f"{name}.npy".encode()
        about = struct.pack(
            "<5H3L2H",
            *(20, 0, 8, _TIME, _DATE),  # the version that reads it, no flags, deflated
            *(zlib.crc32(body, zlib.crc32(head)), len(packed), len(head) + len(body)),
            *(len(file), 0),
        )
        place = len(content)
        content += b"PK\3\4" + about + file + packed
        directory += b"PK\1\2" + struct.pack("<H", 20) + about
        directory += struct.pack("<3H2L", 0, 0, 0, 0, place) + file
    count = len(arrays)
    end = struct.pack("<4H2LH", 0, 0, count, count, len(directory), len(content), 0)
    content += directory + b"PK\5\6" + end
    return content


def _deflated(head: bytes, body: memoryview, values: NDArray[Any], parts: Parts) -> bytes:
    """`head` and `body`, the bytes of `values`, as one stream."""
    if values.nbytes <= SMALL:
        parts = [(values.size, REPEATED)]
    parts = [(stop * values.itemsize, kind) for stop, kind in parts]
    ways = {REPEATED: _way(THOROUGH), RUNS: _way(QUICK), **_chosen(body, parts)}
    way = ways[REPEATED]
    packed = [way.compress(head)]
    start = 0
    for stop, kind in parts:
        if stop == start:
            continue
        block = deflated_indices(values[start // 4 : stop // 4]) if kind == RUNS else None
        if block is not None or ways[kind] is not way:
            # Up to a whole byte, and nothing that follows refers back over it.
            packed.append(way.flush(zlib.Z_FULL_FLUSH))
            way = ways[kind]
        packed.append(way.compress(body[start:stop]) if block is None else block)
        start = stop
    packed.append(way.flush())
    return b"".join(packed)


def _way(level: int, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> Any:
    return zlib.compressobj(level, wbits=-zlib.MAX_WBITS, strategy=strategy)


def _chosen(body: memoryview, parts: Parts) -> dict[int, Any]:
    """The quickest way that is good enough for each sort of values, by samples of a part."""
    longest: dict[int, slice] = {}
    start = 0
    for stop, kind in parts:
        known = longest.get(kind, slice(0, 0))
        if kind >= 0 and stop - start >= known.stop - known.start:
            longest[kind] = slice(start, stop)
        start = stop
    # Only how often each byte occurs; a quick search; a longer one. Sorts share them, so that
    # what follows one another is one stream.
    counting, quick, slow = _way(LEVEL, zlib.Z_HUFFMAN_ONLY), _way(QUICK), _way(LEVEL)
    chosen = {}
    for kind, span in longest.items():
        quarter = (span.stop - span.start) // 4
        tried = b"".join(
            body[begin : begin + min(TRIED, quarter)]
            for begin in (span.start + quarter, span.start + 3 * quarter)
        )
        counted, quickly, slowly = (
            len(way.compress(tried) + way.flush())
            for way in (_way(LEVEL, zlib.Z_HUFFMAN_ONLY), _way(QUICK), _way(LEVEL))
        )
        values = np.frombuffer(body[span], np.uint32)
        repeated = np.count_nonzero(values[1:] == values[:-1])
        if counted <= slowly and repeated <= MOST_REPEATED * len(values):
            chosen[kind] = counting
        else:
            chosen[kind] = quick if quickly <= QUICK_MOST * slowly else slow
    return chosen
