"""Safe reading of arrays from untrusted `.npz` and `.npy` files.

A file may be truncated, altered, or made to exhaust the memory. The size of each array is checked
before memory is allocated, and nothing is ever unpickled.
"""

from __future__ import annotations

import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from os import PathLike
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .opening import open_regular

LARGEST = 1 << 29  # bytes: all arrays of a file together
LARGEST_DIRECTORY = 1 << 20  # bytes; zipfile creates a 600-byte object for every 46 of them
READ_AT_ONCE = 1 << 18  # bytes
MOST_DIMENSIONS = 4
NUMBERS, TEXTS = "biuf", "U"  # kinds of NumPy's types
_END = struct.Struct("<4s4H2LH")  # the zip file's end of central directory

_npy: Any = np.lib.format  # untyped in the stubs before NumPy 2
_HEADERS: dict[tuple[int, int], Any] = {
    (1, 0): _npy.read_array_header_1_0,
    (2, 0): _npy.read_array_header_2_0,
}
# What zipfile, zlib and NumPy raise for damaged or forged data.
_DAMAGE = (
    EOFError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    TypeError,
    SyntaxError,
    MemoryError,
    struct.error,
    tokenize.TokenError,
    zlib.error,
    zipfile.BadZipFile,
)


@dataclass(frozen=True)
class _Limits:
    """Limits of one array: dimensions, kinds (`NUMBERS`, `TEXTS`), values, bytes."""

    dimensions: int
    kinds: str
    most: int
    largest: int


def read_arrays(
    file: str | PathLike[str] | BinaryIO,
    most: Mapping[str, int] | None = None,
    *,
    dimensions: int = MOST_DIMENSIONS,
    kinds: str = NUMBERS + TEXTS,
    largest: int = LARGEST,
) -> dict[str, NDArray[Any]]:
    """Read the arrays of an `.npz`, by name.

    file : its path, or an open file. most : names of the arrays to read, with the most values each
    may have; other arrays are skipped. All are read by default. dimensions : the most that an array
    may have. kinds : what arrays may hold. largest : bytes of all arrays together; at most 2 MB
    more memory is used.

    Raises OSError if the file cannot be read or is not a regular file, and ValueError if it is not
    such an archive.
    """
    opened = open_regular(file) if isinstance(file, str | PathLike) else nullcontext(file)
    with opened as stream:
        try:
            _check_directory(stream)
            with zipfile.ZipFile(stream) as archive:
                left = largest
                arrays = {}
                for info in archive.infolist():
                    name = info.filename.removesuffix(".npy")
                    if most is not None and name not in most:
                        continue
                    values = left if most is None else most[name]
                    limits = _Limits(dimensions, kinds, values, left)
                    arrays[name] = _read_member(archive, info, limits)
                    left -= arrays[name].nbytes
                return arrays
        except _DAMAGE as error:
            raise ValueError(str(error) or type(error).__name__) from error


def read_array(file: str | PathLike[str], *, largest: int) -> NDArray[Any]:
    """Read the array of numbers in an `.npy` file of at most `largest` bytes.

    Nothing may follow the array. Raises as `read_arrays`.
    """
    with open_regular(file) as stream:
        try:
            size = os.fstat(stream.fileno()).st_size
            return _read_npy(stream, size, _Limits(MOST_DIMENSIONS, NUMBERS, size, largest), "it")
        except _DAMAGE as error:
            raise ValueError(str(error) or type(error).__name__) from error


def _check_directory(stream: BinaryIO) -> None:
    """Raise ValueError if zipfile would use too much memory for the archive's directory."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - _END.size - 0xFFFF))
    tail = stream.read()
    # As zipfile does: at the very end, else at the last place with its signature.
    at = len(tail) - _END.size
    if at < 0 or tail[at : at + 4] != b"PK\5\6" or tail[-2:] != b"\0\0":
        at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        raise ValueError("it is not an archive of arrays")
    directory = _END.unpack_from(tail, at)[5]
    if directory > LARGEST_DIRECTORY or tail[max(0, at - 20) : at].startswith(b"PK\6\7"):
        raise ValueError("it is an archive of too many files")
    stream.seek(0)


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limits: _Limits) -> NDArray[Any]:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{info.filename} is compressed in a way that NumPy does not use")
    with archive.open(info) as stream:
        array = _read_npy(stream, info.file_size, limits, info.filename)
        stream.read(1)  # zipfile compares the checksum at the end
    return array


def _read_npy(stream: Any, end: int, limits: _Limits, name: str) -> NDArray[Any]:
    """Read one array, after checking that its size matches its header.

    end : where the array ends in the stream. Raises ValueError and `_DAMAGE`.
    """
    version = _npy.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"{name} has the unknown version {version}")
    shape, fortran, kind = _HEADERS[version](stream)
    if kind.hasobject or kind.kind not in limits.kinds:
        raise ValueError(f"{name} holds no numbers but {kind}")
    size, count = end - stream.tell(), math.prod(shape)
    if len(shape) > limits.dimensions or min(shape, default=0) < 0 or count * kind.itemsize != size:
        raise ValueError(f"{name} does not fit its shape {shape!s:.80}")
    if size > limits.largest or count > limits.most:
        raise ValueError(f"{name} would take {size >> 20} MB of memory")
    content = bytearray(size)
    filled = 0
    while part := stream.read(min(READ_AT_ONCE, size - filled)):
        content[filled : filled + len(part)] = part
        filled += len(part)
    if filled != size:
        raise EOFError(f"{name} ends early")
    array = np.frombuffer(content, dtype=kind)
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)
