"""`XRay` keeps its hits, makes dense frames when asked, and round-trips the published file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_addon import Camera, Surface, XRay, XRayError, cast


def ball_xray(size: int = 32, layers: int = 4) -> tuple[XRay, Camera]:
    mesh = trimesh.creation.icosphere(2)
    colors = np.random.default_rng(0).random((len(mesh.faces), 3, 3))
    camera = Camera.look_at((0, -3, 1), width=size, height=size)
    return cast(Surface(mesh.vertices, mesh.faces, corner_colors=colors), camera, layers), camera


def test_dense_and_sparse_hold_the_same():
    xray, _ = ball_xray()
    again = XRay(xray.depth, xray.normal, xray.color, xray.dropped)
    np.testing.assert_array_equal(again.index, xray.index)
    np.testing.assert_array_equal(again.hit_normal, xray.hit_normal)
    np.testing.assert_array_equal(again.color, xray.color)
    assert xray.hits_per_layer.tolist() == xray.hit.sum(axis=(1, 2)).tolist()


def test_points_lie_on_the_surface_in_world_space():
    xray, camera = ball_xray()
    points = xray.points(camera)
    assert len(points) == len(xray.index)
    radius = np.linalg.norm(points.positions, axis=1)
    assert ((radius > 0.95) & (radius < 1.0001)).all()
    outward = (points.normals * points.positions).sum(axis=1)
    assert (outward > 0.9).all()


def test_points_need_the_camera_of_the_same_size():
    xray, camera = ball_xray()
    with pytest.raises(ValueError, match="32x32"):
        xray.points(camera.resized(64, 64))


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_impossible_depths_are_refused(bad):
    depth = np.full((1, 2, 2), bad)
    with pytest.raises(ValueError, match="finite"):
        XRay(depth, np.zeros((1, 2, 2, 3)), np.zeros((1, 2, 2, 3)))


def test_frames_must_agree_in_shape():
    with pytest.raises(ValueError, match="normal"):
        XRay(np.zeros((2, 4, 4)), np.zeros((1, 4, 4, 3)), np.zeros((2, 4, 4, 3)))


@given(
    st.integers(1, 4), st.integers(1, 7), st.integers(1, 7), st.integers(0, 2**31), st.floats(0, 1)
)
@settings(max_examples=40, deadline=None)
def test_files_round_trip_at_any_shape(tmp_path_factory, layers, height, width, seed, share):
    random = np.random.default_rng(seed)
    depth = random.random((layers, height, width)) * (
        random.random((layers, height, width)) < share
    )
    frames = random.normal(size=(2, layers, height, width, 3)) * (random.random() < 0.9)
    xray = XRay(depth, *frames)
    path = tmp_path_factory.mktemp("files") / "x.npz"
    xray.save(path)
    again = XRay.load(path)
    assert again.shape == xray.shape
    np.testing.assert_array_equal(again.depth, xray.depth)
    np.testing.assert_array_equal(again.normal, xray.normal)
    np.testing.assert_array_equal(again.color, xray.color)


def test_scipy_reads_our_file_as_the_published_loader_does(tmp_path):
    xray, _ = ball_xray()
    xray.save(tmp_path / "x.npz")
    archive = np.load(tmp_path / "x.npz")
    assert set(archive.files) == {"data", "indices", "indptr", "shape"}
    matrix = scipy.sparse.csr_matrix(
        (archive["data"], archive["indices"], archive["indptr"]), shape=archive["shape"]
    )
    assert matrix.has_canonical_format
    dense = matrix.toarray().reshape(4, 7, 32, 32)
    np.testing.assert_array_equal(dense[:, 0], xray.depth)
    np.testing.assert_array_equal(dense[:, 1:4], np.moveaxis(xray.normal, -1, 1))
    np.testing.assert_array_equal(dense[:, 4:7], np.moveaxis(xray.color, -1, 1))


def test_published_files_open_and_are_written_back_alike(golden: Path, tmp_path):
    files = sorted((golden / "xray/xrays").rglob("*.npz"))
    assert files
    for path in files:
        xray = XRay.load(path)
        assert xray.shape == (16, 256, 256)
        xray.save(tmp_path / "again.npz")
        with np.load(path) as old, np.load(tmp_path / "again.npz") as new:
            for name in ("data", "indices", "indptr", "shape"):
                np.testing.assert_array_equal(new[name], old[name])
        assert (tmp_path / "again.npz").stat().st_size <= 1.05 * path.stat().st_size


def test_published_points_are_ours(golden: Path):
    camera = Camera(256, 256, 0.8575560450553894, np.eye(4), pixel_offset=0)
    for path in sorted((golden / "xray").glob("*_points.npz")):
        uid, number = path.stem.removesuffix("_points").split("_")
        (source,) = (golden / "xray/xrays").glob(f"{uid}*/{number}.npz")
        xray, expected = XRay.load(source), np.load(path)
        np.testing.assert_array_equal(xray.hits_per_layer, expected["hits_per_layer"])
        first = xray.index < 8 * 256 * 256
        points = xray.points(camera)
        np.testing.assert_allclose(points.positions[first], expected["points"], atol=1e-5)
        np.testing.assert_allclose(points.normals[first], expected["normals"], atol=1e-5)
        np.testing.assert_allclose(points.colors[first], expected["colors"], atol=1e-5)


def csr(**change):
    arrays = {
        "data": np.ones(1, np.float32),
        "indices": np.zeros(1, np.int32),
        "indptr": np.array([0, 1], np.int32),
        "shape": np.array([1, 7 * 4]),
    }
    return arrays | change


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"data": np.ones(1)}, "lacks indices"),
        (csr(shape=np.array([1, 30])), "not layers"),
        (csr(shape=np.array([1, 28, 2])), "two-dimensional"),
        (csr(indices=np.array([99])), "do not fit"),
        (csr(indptr=np.array([0, 2])), "do not fit"),
        (csr(indices=np.zeros(1)), "two-dimensional"),
        (csr(height=np.array([2, 2])), "two-dimensional"),
        (csr(height=np.array(-2), width=np.array(-2)), "not layers"),
        (csr(data=np.array([np.nan], np.float32)), "not finite"),
        (csr(data=np.array([-1.0], np.float32)), "negative"),
    ],
)
def test_files_that_are_no_xrays_are_refused_by_name_and_reason(tmp_path, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(XRayError, match=message) as caught:
        XRay.load(tmp_path / "bad.npz")
    assert caught.value.code == "bad_xray_file"
    assert "bad.npz" in str(caught.value)


def test_missing_truncated_pickled_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(XRayError, match="no file"):
        XRay.load(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    xray, _ = ball_xray()
    xray.save(tmp_path / "whole.npz")
    content = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    np.savez(tmp_path / "pickle.npz", **csr(data=np.array([object()])))
    np.save(tmp_path / "array.npy", np.ones(3))
    with zipfile.ZipFile(tmp_path / "empty.npz", "w"):
        pass
    for name in ("text.npz", "cut.npz", "pickle.npz", "array.npy", "empty.npz"):
        with pytest.raises(XRayError) as caught:
            XRay.load(tmp_path / name)
        assert caught.value.code == "bad_xray_file"


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    xray, _ = ball_xray()
    xray.save(tmp_path / "x.npz")
    before = (tmp_path / "x.npz").read_bytes()

    def full_disk(stream, **arrays):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full_disk)
    with pytest.raises(OSError, match="No space"):
        xray.save(tmp_path / "x.npz")
    assert (tmp_path / "x.npz").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]
