"""Deflate by libdeflate and numba where they are installed; whatever reads zlib's reads theirs.

libdeflate (the package `deflate`) takes half of zlib's time, and less for pictures. With numba
indices take a tenth of it. Neither is needed: with zlib alone the same is written, in other bytes.
A dataset keeps to the writer that it was begun with, see `dataset.store`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..errors import XRayError

# zlib's levels. NumPy's own, 6, is worth its time for small arrays alone: indices are as small with
# 1, the noise of values with 2 is at most 5 % larger, and both take a fifth of the time.
SMALL_LEVEL, INDEX_LEVEL, VALUE_LEVEL = 6, 1, 2
# libdeflate's. It would pack indices in half of zlib's time, but 8 % larger.
FAST_VALUE_LEVEL, FAST_PICTURE_LEVEL = 4, 6
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


@functools.cache
def installed() -> tuple[Deflater, ...]:
    """All that this Python has, the fastest first."""
    try:
        libdeflate: Any = importlib.import_module("deflate")
        version = importlib.metadata.version("deflate")
    except ImportError:  # PackageNotFoundError too
        return (ZLIB,)
    plain = Deflater(
        f"deflate {version}",
        ZLIB.indices,
        lambda data: bytes(libdeflate.deflate_compress(data, FAST_VALUE_LEVEL)),
        ZLIB.small,
        lambda data: bytes(libdeflate.zlib_compress(data, FAST_PICTURE_LEVEL)),
        libdeflate.crc32,
    )
    try:
        pack_words: Pack = importlib.import_module(".compiled_words", __package__).pack_words
    except (ImportError, OSError):  # OSError: one of numba's libraries
        return plain, ZLIB
    compiled = replace(
        plain,
        name=f"{plain.name} with numba",
        indices=lambda data: pack_words(data) or ZLIB.indices(data),
    )
    return compiled, plain, ZLIB


def fastest() -> Deflater:
    """The fastest that is installed."""
    return installed()[0]


def named(name: str) -> Deflater:
    """The one with that name; raises XRayError `no_deflater` where it is not installed."""
    for deflater in installed():
        if deflater.name == name:
            return deflater
    raise XRayError(
        "no_deflater",
        f"The dataset is written with {name}, and this Python has {fastest().name}.",
        f"Install {name} in it (pip), or make the dataset anew in another folder.",
    )
