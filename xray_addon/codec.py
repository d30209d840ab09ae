"""The published X-Ray file: a SciPy CSR matrix in an `.npz`, written and read with NumPy alone.

The dense tensor is (L, 7, H, W): depth, normal x y z in camera space, red green blue; it is
reshaped to (L, 7 * H * W) and stored as `data`, `indices`, `indptr`, `shape`. Zeros are not
stored. Frames that are not square carry `height` and `width` too, which the published reader
ignores.
"""

from __future__ import annotations

import math
from os import PathLike

import numpy as np

from .errors import XRayError
from .files import read_arrays, replacing
from .xray import XRay

CHANNELS = 7


def write_xray(path: str | PathLike[str], xray: XRay) -> None:
    """Write `xray` to `path` (the suffix .npz is not added), atomically."""
    layers, height, width = xray.shape
    pixels = height * width
    layer, pixel = np.divmod(xray.index, pixels)
    values = np.concatenate(
        [xray.hit_depth[:, None], xray.hit_normal, xray.hit_color], axis=1
    )  # (N, 7)
    # Hits ascend within a layer, so (layer, channel, pixel) order is a stable sort by layer
    # and channel.
    row = np.broadcast_to(layer[:, None], values.shape).T.reshape(-1)
    column = (np.arange(CHANNELS)[:, None] * pixels + pixel[None, :]).reshape(-1)
    data = values.T.reshape(-1)
    order = np.argsort(row, kind="stable")
    order = order[data[order] != 0]
    arrays = {
        "indices": column[order].astype(np.int32 if CHANNELS * pixels < 2**31 else np.int64),
        "indptr": np.concatenate([[0], np.cumsum(np.bincount(row[order], minlength=layers))]),
        "shape": np.array([layers, CHANNELS * pixels]),
        "data": data[order],
    }
    arrays["indptr"] = arrays["indptr"].astype(arrays["indices"].dtype)
    if height != width:
        arrays |= {"height": np.array(height), "width": np.array(width)}
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def read_xray(path: str | PathLike[str]) -> XRay:
    """Read the file at `path`.

    Raises XRayError: `missing_file`, or `bad_xray_file` for anything that is not an X-Ray.
    """
    try:
        arrays = read_arrays(path)
    except FileNotFoundError as error:
        raise XRayError("missing_file", f"There is no file {path}.", "Check the path.") from error
    except (OSError, ValueError) as error:
        raise _bad_file(path, f"it cannot be read ({error})") from error
    missing = {"data", "indices", "indptr", "shape"} - arrays.keys()
    if missing:
        raise _bad_file(path, f"it lacks {', '.join(sorted(missing))}")
    data, indices, indptr = arrays["data"], arrays["indices"], arrays["indptr"]
    dimensions = {"data": 1, "indices": 1, "indptr": 1, "shape": 1, "height": 0, "width": 0}
    if arrays["shape"].shape != (2,) or any(
        arrays[name].ndim != dimensions[name]
        or arrays[name].dtype.kind not in ("fiu" if name == "data" else "iu")
        for name in dimensions.keys() & arrays.keys()
    ):
        raise _bad_file(path, "it does not hold a two-dimensional matrix of numbers")
    layers, columns = (int(n) for n in arrays["shape"])
    pixels = columns // CHANNELS
    height = int(arrays.get("height", math.isqrt(pixels)))
    width = int(arrays.get("width", math.isqrt(pixels)))
    if min(layers, height, width) < 1 or height * width * CHANNELS != columns:
        raise _bad_file(path, f"its shape {layers} x {columns} is not layers x (7 * H * W)")
    if (
        len(indptr) != layers + 1
        or indptr[0] != 0
        or indptr[-1] != len(data)
        or len(indices) != len(data)
        or (np.diff(indptr) < 0).any()
        or (len(indices) and not 0 <= indices.min() <= indices.max() < columns)
    ):
        raise _bad_file(path, "its row pointers and column indices do not fit its shape")
    # Never dense: that would be 30 GB for the largest X-Ray.
    row = np.repeat(np.arange(layers, dtype=np.int64), np.diff(indptr))
    channel, pixel = np.divmod(indices.astype(np.int64), pixels)
    cell, values = row * pixels + pixel, data.astype(np.float32)
    if not np.isfinite(values).all() or (values[channel == 0] < 0).any():
        raise _bad_file(path, "it holds depths that are negative or values that are not finite")
    index = np.unique(cell[(channel == 0) & (values > 0)])
    hits = np.zeros((len(index), CHANNELS), dtype=np.float32)
    place = np.searchsorted(index, cell)
    known = np.append(index, -1)[place] == cell  # what has no depth is no hit
    hits[place[known], channel[known]] = values[known]
    return XRay.from_hits(
        (layers, height, width),
        index,
        hits[:, 0],
        hits[:, 1:4],
        hits[:, 4:7],
    )


def _bad_file(path: str | PathLike[str], reason: str) -> XRayError:
    return XRayError(
        "bad_xray_file",
        f"{path} is not an X-Ray file: {reason}.",
        "Choose an .npz written by X-Ray or by the published X-Ray code.",
    )
