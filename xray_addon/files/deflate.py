"""Deflate by libdeflate where it is installed; whatever reads zlib's reads its.

libdeflate (the package `deflate`) takes half of zlib's time, and less for pictures. It is not
needed: with zlib alone the same is written, in other bytes. A dataset keeps to the writer that it
was begun with, see `dataset.store`.
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

# zlib's levels. NumPy's own, 6, is worth its time for small arrays alone: indices are as small with
# 1, the noise of values with 2 is at most 5 % larger, and both take a fifth of the time.
SMALL_LEVEL, INDEX_LEVEL, VALUE_LEVEL = 6, 1, 2
# libdeflate's. With 1 it finds no matches of three bytes, which are all that pack indices.
FAST_INDEX_LEVEL, FAST_VALUE_LEVEL, FAST_PICTURE_LEVEL = 2, 4, 6
# Where more indices than this share have other upper bytes than the index before, which is where
# hits lie in short runs, libdeflate packs them worse than zlib, up to twice as large.
MOST_JUMPS = 1 / 50
RAW = -zlib.MAX_WBITS  # without zlib's header and checksum

Pack = Callable[[Any], bytes]


@dataclass(frozen=True)
class Deflater:
    """Functions from bytes to deflated bytes.

    name : the library and its version: the same name gives the same bytes. indices, values,
    small : raw, for arrays of an X-Ray. picture : with zlib's header, for the rows of a PNG.
    checksum : zlib's CRC-32.
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
    """The one with that name; raises XRayError `no_deflater` where it is not installed."""
    for deflater in (ZLIB, fastest()):
        if deflater.name == name:
            return deflater
    raise XRayError(
        "no_deflater",
        f"The dataset is written with {name}, and this Python has {fastest().name}.",
        f"Install {name} in it (pip), or make the dataset anew in another folder.",
    )
