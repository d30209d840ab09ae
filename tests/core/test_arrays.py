"""Archives of arrays that others made: what comes out is bounded before memory is taken."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from xray_addon import XRay, XRayError
from xray_addon.files import arrays as reading
from xray_addon.files import xray_file
from xray_addon.files.arrays import read_array, read_arrays


def test_arrays_of_every_kind_and_order_come_back(tmp_path):
    stored = {
        "a": np.arange(6, dtype=np.int16).reshape(2, 3),
        "b": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "c": np.array(True),
    }
    np.savez_compressed(tmp_path / "x.npz", **stored)
    np.savez(tmp_path / "y.npz", **stored)
    for name in ("x.npz", "y.npz"):
        read = read_arrays(tmp_path / name)
        assert {key: value.tolist() for key, value in read.items()} == {
            key: value.tolist() for key, value in stored.items()
        }
    np.save(tmp_path / "z.npy", stored["b"])
    np.testing.assert_array_equal(read_array(tmp_path / "z.npy", largest=1000), stored["b"])


def test_the_limit_is_that_of_all_arrays_together(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", a=np.zeros(100_000), b=np.zeros(100_000))
    assert len(read_arrays(tmp_path / "x.npz", largest=1_600_000)) == 2
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"b\.npy would take 0 MB"):
        read_arrays(tmp_path / "x.npz", largest=1_599_999)
    assert tracemalloc.get_traced_memory()[1] < 1_600_000 + 2**21
    tracemalloc.stop()
    np.save(tmp_path / "x.npy", np.zeros(1000))
    with pytest.raises(ValueError, match="memory"):
        read_array(tmp_path / "x.npy", largest=7999)


def test_a_directory_of_a_million_files_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "LARGEST_DIRECTORY", 4000)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        for number in range(100):
            archive.writestr(f"{number}.npy", b"")
    with pytest.raises(ValueError, match="too many files"):
        read_arrays(tmp_path / "x.npz")
    # What says the same in zip64's words.
    np.savez(tmp_path / "y.npz", a=np.zeros(3))
    content = (tmp_path / "y.npz").read_bytes()
    end = content.rindex(b"PK\5\6")
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
    (tmp_path / "y.npz").write_bytes(content[:end] + locator + content[end:])
    with pytest.raises(ValueError, match="too many files"):
        read_arrays(tmp_path / "y.npz")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_a_pipe_or_device_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "x.npz")
    for path in (tmp_path / "x.npz", "/dev/zero"):
        with pytest.raises(XRayError, match="not a regular file") as caught:
            XRay.load(path)
        assert caught.value.code == "bad_xray_file"
        with pytest.raises(OSError, match="not a regular file"):
            read_array(path, largest=100)


def xray_of(count: int, kind=np.uint8, layers: int = 1) -> io.BytesIO:
    """A file that says `count` numbers, all of which are 1 and lie in one cell."""
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        data=np.ones(count, kind),
        indices=np.zeros(count, np.uint8),
        indptr=np.linspace(0, count, layers + 1).astype(np.int64),
        shape=np.array([layers, 7 * 8192 * 8192]),
    )
    stream.seek(0)
    return stream


def test_small_numbers_are_not_widened_all_at_once():
    stream = xray_of(8_000_000)
    assert len(stream.getvalue()) < 20_000
    tracemalloc.start()
    assert XRay.load(stream).index.tolist() == [0]
    # Two bytes a number are stored, and a million at once take 60 MB on top.
    assert tracemalloc.get_traced_memory()[1] < 2 * 8_000_000 + 80_000_000
    tracemalloc.stop()


def test_a_hundred_million_numbers_in_a_fifth_of_a_megabyte_are_refused(monkeypatch):
    monkeypatch.setattr(xray_file, "LARGEST_ARRAY", 4_000_000)
    with pytest.raises(XRayError, match="memory") as caught:
        XRay.load(xray_of(1_000_001))
    assert caught.value.code == "bad_xray_file"


def test_more_layers_than_settings_allow_are_refused_at_once():
    for layers in (257, 1_000_000):
        with pytest.raises(XRayError) as caught:
            XRay.load(xray_of(layers, layers=layers))
        assert caught.value.code == "bad_xray_file"
    assert XRay.load(xray_of(256, layers=256)).shape[0] == 256


def test_more_hits_than_are_written_are_not_read(monkeypatch, tmp_path):
    monkeypatch.setattr(xray_file, "MOST_HITS", 3)
    depth = np.zeros((1, 2, 2))
    depth[0, 0] = 1
    ones = np.ones((1, 2, 2, 3))
    XRay(depth, ones, ones).save(tmp_path / "x.npz")
    assert len(XRay.load(tmp_path / "x.npz").index) == 2
    with pytest.raises(XRayError) as caught:
        XRay(np.ones((1, 2, 2)), ones, ones).save(tmp_path / "y.npz")
    assert caught.value.code == "too_large"
    monkeypatch.setattr(xray_file, "MOST_HITS", 1)
    with pytest.raises(XRayError, match="more than 1 hits"):
        XRay.load(tmp_path / "x.npz")


def test_dense_frames_of_a_tiny_file_are_bounded():
    xray = XRay.load(xray_of(16, layers=16))
    for name in ("depth", "normal", "color", "hit"):
        with pytest.raises(XRayError) as caught:
            getattr(xray, name)
        assert caught.value.code == "too_large"
