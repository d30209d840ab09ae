"""PNG files, written and read without an image library."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_addon.files.png import read_png, write_png


def image(kind, channels, size=(7, 5)):
    random = np.random.default_rng(0)
    return random.integers(0, np.iinfo(kind).max, (*size, channels), endpoint=True).astype(kind)


def test_a_picture_without_rows_is_not_unpacked(tmp_path):
    write_png(tmp_path / "a.png", np.zeros((1, 4, 3), np.uint8))
    content = (tmp_path / "a.png").read_bytes()
    header = bytearray(content[12:29])
    header[8:12] = bytes(4)  # the height
    check = zlib.crc32(header).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(content[:12] + bytes(header) + check + content[33:])
    with pytest.raises(ValueError, match="no pixels"):
        read_png(tmp_path / "a.png")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_what_is_written_is_read_again(kind, channels, tmp_path):
    wanted = image(kind, channels)
    write_png(tmp_path / "a.png", wanted)
    got = read_png(tmp_path / "a.png")
    assert got.dtype == kind
    assert np.array_equal(got, wanted)


def stored(values, kinds):
    """A PNG of bytes (H, W, C) whose rows are stored in the given ways, by the specification."""
    height, width, channels = values.shape
    lines = b""
    for row in range(height):
        line = bytearray([kinds[row]])
        for column in range(width):
            for channel in range(channels):
                left = int(values[row, column - 1, channel]) if column else 0
                above = int(values[row - 1, column, channel]) if row else 0
                corner = int(values[row - 1, column - 1, channel]) if row and column else 0
                guess = left + above - corner
                paeth = min((left, above, corner), key=lambda x: abs(guess - x))
                predicted = (0, left, above, (left + above) // 2, paeth)[kinds[row]]
                line.append((int(values[row, column, channel]) - predicted) % 256)
        lines += bytes(line)
    stream = io.BytesIO(b"\x89PNG\r\n\x1a\n")
    stream.seek(0, io.SEEK_END)
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")):
        stream.write(len(data).to_bytes(4, "big") + kind + data)
        stream.write(zlib.crc32(kind + data).to_bytes(4, "big"))
    return stream.getvalue()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=6, max_size=6), st.integers(0, 2**32 - 1))
def test_rows_stored_in_every_way_are_read(tmp_path_factory, kinds, seed):
    values = np.random.default_rng(seed).integers(0, 256, (6, 4, 3)).astype(np.uint8)
    path = tmp_path_factory.mktemp("png") / "a.png"
    path.write_bytes(stored(values, kinds))
    assert np.array_equal(read_png(path), values)


def test_what_is_no_png_is_refused(tmp_path):
    path = tmp_path / "a.png"
    write_png(path, image(np.uint8, 3))
    whole = path.read_bytes()
    palette = whole.replace(bytes([8, 2, 0, 0, 0]), bytes([8, 3, 0, 0, 0]))
    for content in (b"", b"GIF89a", whole[:40], whole[:60] + b"x" + whole[61:], palette):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="it "):
            read_png(path)
