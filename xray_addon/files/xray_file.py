"""The published X-Ray file: a SciPy CSR matrix in an `.npz`, written and read with NumPy only.

The dense tensor is (L, 7, H, W): depth, normal x y z in camera space, red green blue. It is
reshaped to (L, 7 * H * W) and stored as `data`, `indices`, `indptr`, `shape`. Zeros are not
stored. Frames that are not square also have `height` and `width`, which the published reader
ignores.

Files are not trusted: one may be truncated, altered, or made to exhaust the memory. Sizes are
checked before memory is allocated, and the matrix is converted to hits in pieces.
"""

from __future__ import annotations

import functools
import io
import math
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from os import PathLike
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import XRayError
from .arrays import NUMBERS, read_arrays
from .atomic import replacing
from .deflate import Deflater, fastest
from .signatures import stand_in_at

Ints = NDArray[np.signedinteger[Any]]

CHANNELS = 7
_npy: Any = np.lib.format  # untyped in the stubs before NumPy 2
SMALL = 1 << 18  # bytes of an array
# No real X-Ray exceeds these; a larger file would exhaust the memory. `read_hits` uses at most
# three times the bytes of the two large arrays.
LARGEST_SIDE = 8192
MOST_LAYERS = 256
LARGEST_ARRAY = 1 << 28  # bytes
MOST_HITS = 1 << 24
AT_ONCE = 1 << 20  # values

# Dimensions and kinds of the arrays in a file.
_LAYOUT = {
    "data": (1, "fiu"),
    "indices": (1, "iu"),
    "indptr": (1, "iu"),
    "shape": (1, "iu"),
    "height": (0, "iu"),
    "width": (0, "iu"),
}


@dataclass(frozen=True)
class StoredHits:
    """The contents of an X-Ray file; see `XRay` for their meaning.

    shape : (L, H, W). index : (N,) ascending. depth (N,), normal (N, 3), color (N, 3) : float32.
    """

    shape: tuple[int, int, int]
    index: NDArray[np.integer]
    depth: NDArray[np.float32]
    normal: NDArray[np.float32]
    color: NDArray[np.float32]


def write_hits(
    path: str | PathLike[str], hits: StoredHits, deflater: Deflater | None = None
) -> None:
    """Write `hits` to `path` (the suffix .npz is not added), atomically.

    deflater : the fastest by default. The same hits and deflater give the same bytes. Raises
    XRayError `too_large` if `read_hits` would reject the file.
    """
    arrays = encode(hits)
    count, (layers, height, width) = len(hits.index), hits.shape
    if (
        arrays["data"].nbytes >= LARGEST_ARRAY
        or count > MOST_HITS
        or layers > MOST_LAYERS
        or max(height, width) > LARGEST_SIDE
    ):
        raise XRayError(
            "too_large",
            f"The X-Ray has {count} hits in {layers} layers of {width} x {height}, which is too "
            "many for a file.",
            "Capture fewer layers or pixels.",
        )
    with replacing(path) as temporary:
        temporary.write_bytes(_archive(arrays, deflater or fastest()))


def _archive(arrays: dict[str, NDArray[Any]], deflater: Deflater) -> memoryview:
    """The `.npz` of `arrays`, the same bytes on every machine."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, values in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # dated 1980, the earliest that zip allows
            entry.create_system = 3
            array = io.BytesIO()
            _npy.write_array(array, values, allow_pickle=False)
            pack = deflater.values if values.dtype.kind == "f" else deflater.indices
            if values.nbytes <= SMALL:
                pack = deflater.small
            # zipfile only compresses with zlib, so it stores the compressed bytes as they are and
            # the header is corrected afterwards.
            archive.writestr(entry, pack(array.getbuffer()))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.file_size, entry.CRC = array.tell(), deflater.checksum(array.getbuffer())
            content.seek(entry.header_offset)
            content.write(entry.FileHeader())
    return content.getbuffer()


def encode(hits: StoredHits) -> dict[str, NDArray[Any]]:
    """The arrays of the file, by name."""
    layers, height, width = hits.shape
    pixels = height * width
    kind: type[np.signedinteger[Any]] = np.int32 if CHANNELS * pixels < 2**31 else np.int64
    compiled = _compiled_matrix()
    if compiled is None:
        data, indices, indptr = _matrix(hits, kind)
    else:
        data, indices, indptr = compiled(
            *map(np.ascontiguousarray, (hits.index, hits.depth, hits.normal, hits.color)),
            layers,
            pixels,
            np.empty(CHANNELS * len(hits.index), kind),
        )
    arrays = {
        "indices": indices,
        "indptr": indptr,
        "shape": np.array([layers, CHANNELS * pixels]),
        "data": data,
    }
    if height != width:
        arrays |= {"height": np.array(height), "width": np.array(width)}
    return arrays


@functools.cache
def _compiled_matrix() -> Callable[..., Any] | None:
    """The compiled `_matrix`, or None without numba."""
    try:
        from .compiled_matrix import matrix
    except (ImportError, OSError):  # OSError: one of numba's libraries
        return None
    return matrix


def _matrix(
    hits: StoredHits, kind: type[np.signedinteger[Any]]
) -> tuple[NDArray[np.float32], Ints, Ints]:
    """data, indices and indptr; the latter two have the type `kind`."""
    layers, height, width = hits.shape
    pixels = height * width
    bounds = np.searchsorted(hits.index, np.arange(layers + 1) * pixels).astype(np.int64)
    data = np.empty(CHANNELS * len(hits.index), dtype=np.float32)
    indices = np.empty(CHANNELS * len(hits.index), dtype=kind)
    channel = (np.arange(CHANNELS)[:, None] * pixels).astype(kind)
    # Rows are layers; columns ascend by channel, then by pixel.
    for layer in range(layers):
        start, stop = bounds[layer : layer + 2]
        here = slice(start, stop)
        row = slice(CHANNELS * start, CHANNELS * stop)
        values = data[row].reshape(CHANNELS, -1)
        values[0] = hits.depth[here]
        values[1:4] = hits.normal[here].T
        values[4:7] = hits.color[here].T
        pixel = (hits.index[here] - layer * pixels).astype(kind)
        np.add(channel, pixel, out=indices[row].reshape(CHANNELS, -1))
    stored = data != 0
    indptr = CHANNELS * bounds
    if not stored.all():
        data, indices = data[stored], indices[stored]
        indptr = np.concatenate([[0], np.cumsum(stored)])[indptr]
    return data, indices, indptr.astype(kind)


def read_hits(path: str | PathLike[str] | BinaryIO) -> StoredHits:
    """Read the file at `path`, or an open file.

    Raises XRayError `missing_file`, or `bad_xray_file` if it is not an X-Ray.
    """
    try:
        arrays = read_arrays(
            path, _most_values(), dimensions=1, kinds=NUMBERS, largest=3 * LARGEST_ARRAY
        )
    except FileNotFoundError as error:
        raise XRayError("missing_file", f"There is no file {path}.", "Check the path.") from error
    except (OSError, ValueError) as error:
        kind = stand_in_at(path)
        if kind is not None:
            raise XRayError("bad_xray_file", f"{path} {kind.what}.", kind.remedy) from error
        raise _bad_file(path, f"it cannot be read ({error})") from error
    missing = {"data", "indices", "indptr", "shape"} - arrays.keys()
    if missing:
        raise _bad_file(path, f"it lacks {', '.join(sorted(missing))}")
    data, indices, indptr = arrays["data"], arrays["indices"], arrays["indptr"]
    if arrays["shape"].shape != (2,) or any(
        arrays[name].ndim != dimensions or arrays[name].dtype.kind not in kinds
        for name, (dimensions, kinds) in _LAYOUT.items()
        if name in arrays
    ):
        raise _bad_file(path, "it does not hold a two-dimensional matrix of numbers")
    layers, columns = (int(n) for n in arrays["shape"])
    pixels = max(columns, 0) // CHANNELS
    height = int(arrays.get("height", math.isqrt(pixels)))
    width = int(arrays.get("width", math.isqrt(pixels)))
    if (
        min(layers, height, width) < 1
        or max(height, width) > LARGEST_SIDE
        or height * width * CHANNELS != columns
    ):
        raise _bad_file(path, f"its shape {layers} x {columns} is not layers x (7 * H * W)")
    if (
        len(indptr) != layers + 1
        or indptr[0] != 0
        or indptr[-1] != len(data)
        or len(indices) != len(data)
        or (indptr[1:] < indptr[:-1]).any()
        or (len(indices) and not 0 <= indices.min() <= indices.max() < columns)
    ):
        raise _bad_file(path, "its row pointers and column indices do not fit its shape")
    if layers > MOST_LAYERS:
        raise _bad_file(path, f"it has {layers} layers, more than {MOST_LAYERS}")
    found, count = [np.empty(0, np.int64)], 0
    for cell, channel, values in _pieces(data, indices, indptr, pixels):
        if not np.isfinite(values).all() or (values[channel == 0] < 0).any():
            raise _bad_file(path, "it holds depths that are negative or values that are not finite")
        found.append(np.unique(cell[(channel == 0) & (values > 0)]))
        count += len(found[-1])
        if count > MOST_HITS:
            raise _bad_file(path, f"it has more than {MOST_HITS} hits")
    index = np.unique(np.concatenate(found))
    rows = np.zeros((len(index), CHANNELS), dtype=np.float32)
    ended = np.append(index, -1)
    for cell, channel, values in _pieces(data, indices, indptr, pixels):
        place = np.searchsorted(index, cell)
        known = ended[place] == cell  # cells without depth are not hits
        rows[place[known], channel[known]] = values[known]
    shape = (layers, height, width)
    return StoredHits(shape, index, rows[:, 0], rows[:, 1:4], rows[:, 4:7])


def _most_values() -> dict[str, int]:
    """The most values per array, with room for errors that get a more specific message later."""
    values, few = LARGEST_ARRAY // 4, 2 * MOST_LAYERS
    return {
        "data": values,
        "indices": values,
        "indptr": few,
        "shape": few,
        "height": few,
        "width": few,
    }


def _pieces(
    data: NDArray[Any], indices: NDArray[Any], indptr: NDArray[Any], pixels: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """Cell of the layers, channel and value of each stored number, at most `AT_ONCE` at a time.

    Dense or in one piece, this would use many times the memory of the file's arrays.
    """
    for layer, (start, stop) in enumerate(pairwise(indptr.tolist())):
        for begin in range(start, stop, AT_ONCE):
            piece = slice(begin, min(begin + AT_ONCE, stop))
            channel, pixel = np.divmod(indices[piece].astype(np.int64), pixels)
            with np.errstate(over="ignore"):
                yield pixel + layer * pixels, channel, data[piece].astype(np.float32)


def _bad_file(path: str | PathLike[str] | BinaryIO, reason: str) -> XRayError:
    return XRayError(
        "bad_xray_file",
        f"{path} is not an X-Ray file: {reason}.",
        "Choose an .npz written by X-Ray or by the published X-Ray code.",
    )
