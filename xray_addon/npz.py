"""An `.npz` written from arrays of which each part is compressed in the way that suits it.

`np.savez_compressed` looks for repetitions everywhere. In the noise of measured values there are
none, and to look for them takes most of the time; there only the frequencies of bytes help.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .deflate import deflated_indices

_npy: Any = np.lib.format  # NumPy's stubs before 2 know no types there
# zlib's levels, of 9. NumPy's 6 takes ten times as long on indices, which become no smaller.
INDEX_LEVEL, VALUE_LEVEL, SMALL_LEVEL = 1, 4, 6
# Arrays up to this size are left to zlib: within its window of 32 KB it finds whole layers again.
SMALL = 1 << 17  # bytes
# How much of the values is tried.
TRIED = 1 << 13  # bytes
# Midnight of 1 January 1980, the first time that a zip file can tell.
_TIME, _DATE = 0, 0x21
# Parts of an array: where each ends, and its kind; parts of a kind are compressed alike.
Parts = Sequence[tuple[int, int]]


def npz(arrays: dict[str, NDArray[Any]], parts: dict[str, Parts]) -> bytearray:
    """The file that holds `arrays` (one-dimensional or single numbers), each less than 2 GiB.

    parts : of which parts an array consists, by its name; the others are whole.
    """
    content, directory = bytearray(), bytearray()
    for name, values in arrays.items():
        header = io.BytesIO()
        _npy.write_array_header_1_0(header, _npy.header_data_from_array_1_0(values))
        head = header.getvalue()
        body = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
        packed = _deflated(head, body, values, parts.get(name, [(values.size, 0)]))
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
        way = _way(zlib.Z_DEFAULT_STRATEGY, SMALL_LEVEL)
        return b"".join([way.compress(head), way.compress(body), way.flush()])
    level = VALUE_LEVEL if values.dtype.kind == "f" else INDEX_LEVEL
    ways = [_way(zlib.Z_DEFAULT_STRATEGY, level), _way(zlib.Z_HUFFMAN_ONLY, level)]
    way = ways[0]
    packed = [way.compress(head)]
    indices = deflated_indices(values) if values.dtype == np.int32 else None
    if indices is not None:
        # After a full flush the stream is at a whole byte, and what follows refers to nothing
        # before.
        return b"".join([*packed, way.flush(zlib.Z_FULL_FLUSH), indices])
    spans: dict[int, list[slice]] = {}
    start = 0
    for stop, kind in parts:
        spans.setdefault(kind, []).append(slice(start * values.itemsize, stop * values.itemsize))
        start = stop
    noise = {kind: _is_noise(body, there) for kind, there in spans.items()}
    start = 0
    for stop, kind in parts:
        if ways[noise[kind]] is not way:
            packed.append(way.flush(zlib.Z_FULL_FLUSH))
            way = ways[noise[kind]]
        packed.append(way.compress(body[start * values.itemsize : stop * values.itemsize]))
        start = stop
    return b"".join([*packed, way.flush()])


def _way(strategy: int, level: int = VALUE_LEVEL) -> Any:
    return zlib.compressobj(level, wbits=-zlib.MAX_WBITS, strategy=strategy)


def _is_noise(body: memoryview, spans: list[slice]) -> bool:
    """Whether repetitions are of no use in the parts at `spans`, by a sample of the longest."""
    longest = max(spans, key=lambda span: span.stop - span.start)
    begin = max((longest.start + longest.stop - TRIED) // 2, longest.start)
    tried = body[begin : min(begin + TRIED, longest.stop)]
    looking, counting = (
        len(way.compress(tried) + way.flush())
        for way in (_way(zlib.Z_DEFAULT_STRATEGY), _way(zlib.Z_HUFFMAN_ONLY))
    )
    return counting <= looking
