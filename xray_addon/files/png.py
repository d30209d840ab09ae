"""A PNG writer: Blender's own goes through an image datablock, which this work must not leave."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

from .atomic import replacing

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import NDArray

_COLOR_TYPE = {3: 2, 4: 6}  # channels to RGB, RGBA


def write_png(path: str | PathLike[str], image: NDArray[np.uint8]) -> None:
    """Write `image` (H, W, 3 or 4), row 0 at the top, straight alpha; atomically."""
    height, width, channels = image.shape
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOR_TYPE[channels], 0, 0, 0)
    # Each row holds its difference to the row above ("up", filter 2), which packs well.
    rows = image.reshape(height, width * channels)
    rows = rows - np.concatenate([np.zeros_like(rows[:1]), rows[:-1]])
    lines = np.concatenate([np.full((height, 1), 2, np.uint8), rows], axis=1)
    with replacing(path) as temporary, temporary.open("wb") as stream:
        stream.write(b"\x89PNG\r\n\x1a\n")
        for kind, data in (
            (b"IHDR", header),
            (b"IDAT", zlib.compress(lines.tobytes(), 6)),
            (b"IEND", b""),
        ):
            stream.write(struct.pack(">I", len(data)) + kind + data)
            stream.write(struct.pack(">I", zlib.crc32(kind + data)))
