"""Deflate with libdeflate if it is installed, otherwise with zlib.

libdeflate (the package `deflate`) takes half of zlib's time, and less for pictures. Any zlib reader
reads its output; the compressed bytes differ from zlib's. A dataset is completed with the library
that it was begun with, see `dataset.store`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import XRayError

# zlib's levels. NumPy's default, 6, only pays off for small arrays: with 1, indices are as small;
# with 2, noisy values are at most 5 % larger. Both take a fifth of the time.
SMALL_LEVEL, INDEX_LEVEL, VALUE_LEVEL = 6, 1, 2
# libdeflate's. With 1 it finds no 3-byte matches, which are the only ones in indices.
FAST_INDEX_LEVEL, FAST_VALUE_LEVEL, FAST_PICTURE_LEVEL = 2, 4, 6
# If the upper bytes change at more than this share of the indices (hits in short runs),
# libdeflate compresses them worse than zlib: up to twice as large.
MOST_JUMPS = 1 / 50
RAW = -zlib.MAX_WBITS  # without zlib's header and checksum

Pack = Callable[[Any], bytes]


@dataclass(frozen=True)
class Deflater:
    """Functions that compress bytes.

    name : the library and its version; the same name gives the same bytes. indices, values,
    small : raw deflate, for arrays of an X-Ray. picture : with zlib's header, for the rows of a
    PNG. checksum : zlib's CRC-32.
    """

    name: str
    indices: Pack
    values: Pack
    small: Pack
    picture: Pack
    checksum: Callable[[Any], int] = zlib.crc32


def _raw(level: int) -> Pack:
    def pack(data: Any) -> bytes:
        packer = zlib.compressobj(level, zlib.DEFLATED, RAW)
        return packer.compress(data) + packer.flush()

    return pack


ZLIB = Deflater(
    "zlib",
    _raw(INDEX_LEVEL),
    _raw(VALUE_LEVEL),
    _raw(SMALL_LEVEL),
    functools.partial(zlib.compress, level=6),
)


def _in_long_runs(indices: Any) -> bool:
    upper = np.frombuffer(indices, np.uint32) >> 8
    return bool(np.count_nonzero(upper[1:] != upper[:-1]) <= MOST_JUMPS * len(upper))


@functools.cache
def fastest() -> Deflater:
    """libdeflate if it is installed, or zlib."""
    try:
        libdeflate: Any = importlib.import_module("deflate")
        version = importlib.metadata.version("deflate")
    except ImportError:  # PackageNotFoundError too
        return ZLIB
    return Deflater(
        f"deflate {version}",
        lambda data: (
            bytes(libdeflate.deflate_compress(data, FAST_INDEX_LEVEL))
            if _in_long_runs(data)
            else ZLIB.indices(data)
        ),
        lambda data: bytes(libdeflate.deflate_compress(data, FAST_VALUE_LEVEL)),
        ZLIB.small,
        lambda data: bytes(libdeflate.zlib_compress(data, FAST_PICTURE_LEVEL)),
        libdeflate.crc32,
    )


def named(name: str) -> Deflater:
    """The deflater with that name. Raises XRayError `no_deflater` if it is not installed."""
    for deflater in (ZLIB, fastest()):
        if deflater.name == name:
            return deflater
    raise XRayError(
        "no_deflater",
        f"The dataset is written with {name}, and this Python has {fastest().name}.",
        f"Install {name} in it (pip), or make the dataset anew in another folder.",
    )
