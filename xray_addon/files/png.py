"""PNG files, written and read without Blender, which would leave image datablocks behind."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from .atomic import replacing
from .deflate import Deflater, fastest
from .opening import read_at_most

if TYPE_CHECKING:
    from os import PathLike
    from pathlib import Path

    from numpy.typing import NDArray

LARGEST, MOST_PIXELS = 1 << 28, 1 << 24  # limits of reading: bytes, pixels
ROWS_TRIED = 8  # every 8th row is tried
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOR_TYPE = {1: 0, 2: 4, 3: 2, 4: 6}  # channels to grey, grey and alpha, RGB, RGBA
_CHANNELS = {color_type: channels for channels, color_type in _COLOR_TYPE.items()}
_NONE, _LEFT, _UP, _AVERAGE, _PAETH = range(5)  # how a row is stored as differences


def write_png(
    path: str | PathLike[str],
    image: NDArray[np.unsignedinteger[Any]],
    deflater: Deflater | None = None,
) -> None:
    """Write `image` to a PNG file, atomically; see `encode_png`."""
    content = encode_png(image, deflater)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def encode_png(image: NDArray[np.unsignedinteger[Any]], deflater: Deflater | None = None) -> bytes:
    """`image` (H, W, 1 to 4) uint8 or uint16, row 0 at the top, as the bytes of a PNG file.

    Alpha is straight; it is the last of 2 or 4 channels. deflater : the fastest by default.
    """
    height, width, channels = image.shape
    depth = image.dtype.itemsize
    header = struct.pack(">IIBBBBB", width, height, 8 * depth, _COLOR_TYPE[channels], 0, 0, 0)
    data = np.ascontiguousarray(image, image.dtype.newbyteorder(">")).view(np.uint8)
    rows = data.reshape(height, width * channels * depth)
    # Flat colours compress best unfiltered, shading as the difference to the row above. Both are
    # tried on a few rows.
    above = rows - np.concatenate([np.zeros_like(rows[:1]), rows[:-1]])
    lines = min(
        (
            np.concatenate([np.full((height, 1), kind, np.uint8), values], axis=1)
            for kind, values in ((_NONE, rows), (_UP, above))
        ),
        key=lambda lines: len(zlib.compress(lines[::ROWS_TRIED].tobytes(), 1)),
    )
    parts = [_SIGNATURE]
    for kind, content in (
        (b"IHDR", header),
        (b"IDAT", (deflater or fastest()).picture(lines.tobytes())),
        (b"IEND", b""),
    ):
        parts += struct.pack(">I", len(content)), kind, content
        parts.append(struct.pack(">I", zlib.crc32(kind + content)))
    return b"".join(parts)


def read_png(path: Path) -> NDArray[np.unsignedinteger[Any]]:
    """The image (H, W, 1 to 4) uint8 or uint16 in a file, as stored, row 0 at the top.

    Raises OSError, and ValueError if it is not a PNG with 8 or 16 bits per channel, is interlaced
    or has a palette.
    """
    content = read_at_most(path, LARGEST)
    if not content.startswith(_SIGNATURE):
        raise ValueError("it is no PNG")
    header, packed = b"", []
    for kind, data in _chunks(content):
        if kind == b"IHDR":
            header = data
        elif kind == b"IDAT":
            packed.append(data)
    if len(header) != 13:
        raise ValueError("it has no header")
    width, height, bits, color_type, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if bits not in (8, 16) or color_type not in _CHANNELS or interlaced:
        raise ValueError("it has a palette, is interlaced or has less than 8 bits a channel")
    if width * height > MOST_PIXELS:
        raise ValueError(f"it has {width} x {height} pixels, which is too many")
    pixel = _CHANNELS[color_type] * bits // 8
    unpacker = zlib.decompressobj()
    size = height * (width * pixel + 1)
    if not size:
        raise ValueError("it has no pixels")
    try:
        lines = unpacker.decompress(b"".join(packed), size)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(lines) != size:
        raise ValueError("it is cut off")
    rows = np.frombuffer(lines, np.uint8).reshape(height, width * pixel + 1)
    values = _restored(rows[:, 1:].reshape(height, width, pixel), rows[:, 0])
    if bits == 16:
        return values.view(">u2").astype(np.uint16)
    return values


def _chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    """Type and data of each chunk of a PNG. Raises ValueError if one is damaged."""
    found, place = [], len(_SIGNATURE)
    while place < len(content):
        head = content[place : place + 8]
        if len(head) < 8:
            raise ValueError("it is cut off")
        size, kind = struct.unpack(">I4s", head)
        data = content[place + 8 : place + 8 + size]
        check = content[place + 8 + size : place + 12 + size]
        if len(check) < 4 or zlib.crc32(kind + data) != struct.unpack(">I", check)[0]:
            raise ValueError("it is damaged or cut off")
        found.append((kind, data))
        place += 12 + size
    return found


def _restored(rows: NDArray[np.uint8], kinds: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Undo the filters of PNG's rows: bytes (H, W, P) from differences to pixels left and above.

    The pixels of a diagonal depend only on the two diagonals before it, so they are computed
    together.
    """
    height, width, pixel = rows.shape
    if (kinds > _PAETH).any():
        raise ValueError("it is damaged")
    if np.isin(kinds, (_NONE, _UP)).all():
        return _restored_from_above(rows, kinds)
    values = np.zeros((height + 1, width + 1, pixel), np.uint8)
    for diagonal in range(height + width - 1):
        row = np.arange(max(0, diagonal - width + 1), min(height, diagonal + 1))
        column = diagonal - row
        left = values[row + 1, column].astype(np.int16)
        above = values[row, column + 1].astype(np.int16)
        corner = values[row, column].astype(np.int16)
        guess = left + above - corner
        to_left, to_above, to_corner = (np.abs(guess - x) for x in (left, above, corner))
        paeth = np.where(
            (to_left <= to_above) & (to_left <= to_corner),
            left,
            np.where(to_above <= to_corner, above, corner),
        )
        predicted = np.choose(
            kinds[row][:, None], [np.zeros_like(left), left, above, (left + above) // 2, paeth]
        )
        values[row + 1, column + 1] = rows[row, column] + predicted.astype(np.uint8)
    return values[1:, 1:]


def _restored_from_above(rows: NDArray[np.uint8], kinds: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`_restored` if no row depends on pixels to the left."""
    values = rows.copy()
    for number in range(1, len(rows)):
        if kinds[number] == _UP:
            values[number] += values[number - 1]
    return values
