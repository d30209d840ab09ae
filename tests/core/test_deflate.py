"""Files are the same in content whichever library deflates them, and a dataset keeps to one."""

from __future__ import annotations

import json
import sys
import time
import zipfile
import zlib

import numpy as np
import pytest
import scipy.sparse
import trimesh

from xray_addon import Camera, Surface, XRay, XRayError, cast
from xray_addon.dataset import store
from xray_addon.dataset.attempt import Store
from xray_addon.files import deflate, xray_file
from xray_addon.files.png import read_png, write_png
from xray_addon.pictures.shading import shade_surface
from xray_addon.settings.dataset import DatasetSettings

pytest.importorskip("deflate")
FAST = deflate.fastest()
CAMERA = Camera.look_at((0.5, -2.5, 1), width=256, height=256)


@pytest.fixture(scope="module")
def surface() -> Surface:
    """Nested balls with smooth normals and colours, so that values are noise."""
    balls = [trimesh.creation.icosphere(4, radius) for radius in (0.3, 0.6, 1.0)]
    mesh = trimesh.util.concatenate(balls)
    colors = np.random.default_rng(0).random((len(mesh.faces), 3, 3))
    return Surface(mesh.vertices, mesh.faces, mesh.vertex_normals[mesh.faces], corner_colors=colors)


@pytest.fixture(scope="module")
def xray(surface) -> XRay:
    return cast(surface, CAMERA, 8)


@pytest.mark.parametrize("radius", [0.2, 0.8])
def test_indices_are_about_as_small_as_by_zlib(radius: float):
    """Of a disc, small or large in the image, in each channel of a layer."""
    y, x = np.mgrid[-1:1:256j, -1:1:256j]
    pixel = np.flatnonzero(np.hypot(x, y) < radius)
    indices = (pixel + x.size * np.arange(7)[:, None]).astype(np.int32).tobytes()
    assert len(FAST.indices(indices)) <= 1.05 * len(deflate.ZLIB.indices(indices))
    assert zlib.decompress(FAST.indices(indices), deflate.RAW) == indices


def test_the_arrays_are_the_same_for_every_reader(xray, tmp_path):
    for deflater in (deflate.ZLIB, FAST):
        xray.save(tmp_path / "x.npz", deflater)
        again = XRay.load(tmp_path / "x.npz")
        np.testing.assert_array_equal(again.index, xray.index)
        np.testing.assert_array_equal(again.hit_normal, xray.hit_normal)
        # The published reader: NumPy and SciPy, with all checksums.
        assert zipfile.ZipFile(tmp_path / "x.npz").testzip() is None
        with np.load(tmp_path / "x.npz") as held:
            matrix = scipy.sparse.csr_matrix(
                (held["data"], held["indices"], held["indptr"]), shape=held["shape"]
            )
        dense = matrix.toarray().reshape(8, 7, 256, 256)
        np.testing.assert_array_equal(dense[:, 0], xray.depth)


def test_zlib_alone_gives_the_bytes_of_the_zip_module(xray, tmp_path):
    xray.save(tmp_path / "x.npz", deflate.ZLIB)
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        for info in archive.infolist():
            packer = zlib.compressobj(
                {"indices.npy": 1, "data.npy": 2}.get(info.filename, 6), zlib.DEFLATED, -15
            )
            packed = packer.compress(archive.read(info)) + packer.flush()
            assert info.compress_size == len(packed)


def test_files_are_hardly_larger_and_take_less_time(xray, surface, tmp_path):
    picture = shade_surface(surface, CAMERA.resized(512, 512))
    seconds, sizes = {"zlib": np.inf, FAST.name: np.inf}, {}
    for _ in range(5):  # in turn, so that other work on the machine slows both down
        for deflater in (deflate.ZLIB, FAST):
            began = time.process_time()
            xray.save(tmp_path / "x.npz", deflater)
            write_png(tmp_path / "x.png", picture, deflater)
            took = time.process_time() - began
            seconds[deflater.name] = min(seconds[deflater.name], took)
            sizes[deflater.name] = [(tmp_path / n).stat().st_size for n in ("x.npz", "x.png")]
            np.testing.assert_array_equal(read_png(tmp_path / "x.png"), picture)
    for ours, theirs in zip(sizes[FAST.name], sizes["zlib"], strict=True):
        assert ours <= 1.05 * theirs
    # About half, with what both do alike.
    assert seconds[FAST.name] <= 0.8 * seconds["zlib"]


def test_the_compiled_matrix_is_the_same(monkeypatch):
    pytest.importorskip("numba")
    random = np.random.default_rng(2)
    for shape in ((1, 1, 1), (3, 4, 5), (16, 32, 32)):
        index = np.flatnonzero(random.random(np.prod(shape)) < 0.5)
        depth, normal, color = (
            random.integers(0, 3, (len(index), *width)).astype(np.float32)
            for width in ((), (3,), (3,))
        )
        hits = xray_file.StoredHits(shape, index, depth + 1, normal - 1, color)
        ours = xray_file.encode(hits)
        with monkeypatch.context() as patch:
            patch.setattr(xray_file, "_compiled_matrix", lambda: None)
            theirs = xray_file.encode(hits)
        assert ours.keys() == theirs.keys()
        for name, values in theirs.items():
            assert ours[name].dtype == values.dtype
            np.testing.assert_array_equal(ours[name], values)


def test_zlib_is_taken_where_libdeflate_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "deflate", None)
    deflate.fastest.cache_clear()
    try:
        assert deflate.fastest() is deflate.ZLIB
    finally:
        deflate.fastest.cache_clear()


def writer(folder) -> str:
    return json.loads((folder / "settings.json").read_text())["writer"]


def test_a_dataset_keeps_to_the_writer_that_it_was_begun_with(tmp_path, monkeypatch):
    settings = DatasetSettings(image="cast")
    with Store(tmp_path, settings) as begun:
        assert begun.deflater == deflate.fastest()
    assert writer(tmp_path) == FAST.name
    with monkeypatch.context() as patch:
        patch.setattr(deflate, "fastest", lambda: deflate.ZLIB)
        with pytest.raises(XRayError, match="deflate") as caught, Store(tmp_path, settings):
            pass
        assert caught.value.code == "no_deflater"
        patch.setattr(store, "fastest", lambda: deflate.ZLIB)
        with Store(tmp_path / "plain", settings) as begun:
            assert begun.deflater is deflate.ZLIB
    with Store(tmp_path / "plain", settings) as resumed:
        assert resumed.deflater is deflate.ZLIB  # although this Python has faster ones
    # Other gates change nothing that is written; the farm, which claims it, writes nothing.
    store.claim(tmp_path / "plain", DatasetSettings(image="cast", min_iou=0.5))
    assert writer(tmp_path / "plain") == "zlib"
    store.claim(tmp_path / "farm", settings)
    assert "writer" not in json.loads((tmp_path / "farm" / "settings.json").read_text())
