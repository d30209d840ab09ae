"""`XRay` keeps its hits, makes dense frames when asked, and round-trips the published file."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_addon import Camera, Surface, XRay, XRayError, cast
from xray_addon.files import xray_file as codec


def encoded(xray):
    return codec.encode(
        codec.StoredHits(xray.shape, xray.index, xray.hit_depth, xray.hit_normal, xray.hit_color)
    )


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


@pytest.mark.parametrize("kind", ["flat", "smooth", "shelves"])
@pytest.mark.parametrize("size", [32, 64, 80, 128, 256])
def test_files_are_hardly_larger_than_those_of_numpy(tmp_path, kind, size):
    mesh = trimesh.creation.icosphere(4)
    colors = np.random.default_rng(0).random((len(mesh.vertices), 3))[mesh.faces]
    normals = mesh.vertex_normals[mesh.faces] if kind == "smooth" else None
    ball = Surface(mesh.vertices, mesh.faces, corner_normals=normals, corner_colors=colors)
    # Shelves are alike layer after layer, which zlib makes use of.
    boxes = [trimesh.creation.box((1, 1, 0.01)).apply_translation((0, 0, z)) for z in (-1, 0, 1)]
    shelves = trimesh.util.concatenate(boxes)
    surface = ball if kind != "shelves" else Surface(shelves.vertices, shelves.faces)
    xray = cast(surface, Camera.look_at((0, -3, 1), width=size, height=size), 8)
    xray.save(tmp_path / "ours.npz")
    np.savez_compressed(tmp_path / "numpy.npz", **encoded(xray))
    ours, theirs = ((tmp_path / n).stat().st_size for n in ("ours.npz", "numpy.npz"))
    assert ours <= 1.05 * theirs


def test_an_xray_that_could_not_be_read_is_not_written(tmp_path, monkeypatch):
    xray, _ = ball_xray()
    monkeypatch.setattr(codec, "LARGEST_ARRAY", encoded(xray)["data"].nbytes)
    with pytest.raises(XRayError, match="too many") as caught:
        xray.save(tmp_path / "x.npz")
    assert caught.value.code == "too_large"
    long = XRay(np.ones((1, 1, 9000)), np.zeros((1, 1, 9000, 3)), np.zeros((1, 1, 9000, 3)))
    with pytest.raises(XRayError, match="9000 x 1"):
        long.save(tmp_path / "x.npz")
    assert not list(tmp_path.iterdir())


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
        (csr(shape=np.array([-1, -28])), "not layers"),
        (csr(shape=np.array([1, 7 * 2**40])), "not layers"),
        (csr(shape=np.array([2**62, 28])), "do not fit"),
        (csr(shape=np.array([2**63 + 1, 28], np.uint64)), "do not fit"),
        (csr(indptr=np.array([0, 5, 1], np.uint64), shape=np.array([2, 28])), "do not fit"),
        (csr(indices=np.array([2**63], np.uint64)), "do not fit"),
        (csr(data=np.array([1e300])), "not finite"),
        (csr(indices=np.array([99])), "do not fit"),
        (csr(indptr=np.array([0, 2])), "do not fit"),
        (csr(indices=np.zeros(1)), "two-dimensional"),
        (csr(height=np.array([2, 2])), "two-dimensional"),
        (csr(data=np.ones((1, 1))), "does not fit its shape"),
        (csr(data=np.array(["1"])), "no numbers"),
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

    def full_disk(path, content):
        with path.open("wb") as stream:
            stream.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space"):
        xray.save(tmp_path / "x.npz")
    assert (tmp_path / "x.npz").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def npz(path: Path, name: str, header: bytes, body: bytes, compression=zipfile.ZIP_DEFLATED):
    """A file that is whole but for the array `name`, whose bytes are given."""
    np.savez(path, **csr())
    with zipfile.ZipFile(path) as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
    members[f"{name}.npy"] = header + body
    with zipfile.ZipFile(path, "w", compression) as archive:
        for member, content in members.items():
            archive.writestr(member, content)


def npy_header(shape: tuple[int, ...], kind: str) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": kind, "fortran_order": False, "shape": shape}
    )
    return stream.getvalue()


@pytest.mark.parametrize(
    ("shape", "kind", "body"),
    [
        ((10**12,), "<f4", b"\0" * 4),
        ((2**62,), "<f8", b""),
        ((2**63, 2**63), "<f8", b""),
        ((-1,), "<f4", b"\0" * 4),
        ((1,), "|O", b"cos\nsystem\n(S'echo'\ntR."),
        ((1,), "<U1", b"\0" * 4),
        ((2,), "<f4", b"\0" * 4),
    ],
)
def test_a_header_that_lies_is_refused_before_memory_is_taken(tmp_path, shape, kind, body):
    npz(tmp_path / "x.npz", "data", npy_header(shape, kind), body)
    tracemalloc.start()
    with pytest.raises(XRayError) as caught:
        XRay.load(tmp_path / "x.npz")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    assert caught.value.code == "bad_xray_file"


def test_a_bomb_of_zeros_is_refused_before_memory_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(codec, "LARGEST_ARRAY", 2**22)
    count = 2**22
    npz(tmp_path / "x.npz", "data", npy_header((count,), "<f4"), bytes(4 * count))
    assert (tmp_path / "x.npz").stat().st_size < 2**16
    tracemalloc.start()
    with pytest.raises(XRayError, match="16 MB of memory"):
        XRay.load(tmp_path / "x.npz")
    assert tracemalloc.get_traced_memory()[1] < 2**21
    tracemalloc.stop()


def test_a_size_that_lies_in_the_directory_is_refused(tmp_path):
    xray, _ = ball_xray()
    xray.save(tmp_path / "x.npz")
    content = bytearray((tmp_path / "x.npz").read_bytes())
    at = content.rindex(b"PK\x01\x02")
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        assert archive.infolist()[-1].filename == "data.npy"
    content[at + 24 : at + 28] = (2**31).to_bytes(4, "little")
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(XRayError, match="does not fit its shape"):
        XRay.load(tmp_path / "x.npz")


def test_compression_that_numpy_does_not_use_is_refused(tmp_path):
    npz(tmp_path / "x.npz", "data", npy_header((1,), "<f4"), bytes(4), zipfile.ZIP_LZMA)
    with pytest.raises(XRayError, match="NumPy does not use"):
        XRay.load(tmp_path / "x.npz")


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("fuzz") / "x.npz"
    ball_xray(16)[0].save(path)
    return path.read_bytes()


def loads_or_is_refused(path: Path) -> None:
    try:
        xray = XRay.load(path)
    except XRayError as refused:
        error = refused
    else:
        # Flips in what no reader looks at: dates, padding.
        assert xray.depth.shape == xray.shape
        return
    assert error.code == "bad_xray_file"


def test_a_file_cut_anywhere_is_refused(whole_file, tmp_path):
    path = tmp_path / "cut.npz"
    for length in range(0, len(whole_file), 97):
        path.write_bytes(whole_file[:length])
        with pytest.raises(XRayError):
            XRay.load(path)


@pytest.mark.filterwarnings("ignore:Duplicate name|.*header")
def test_flipped_bits_load_or_are_refused_by_name(whole_file, tmp_path):
    random = np.random.default_rng(0)
    path = tmp_path / "flipped.npz"
    tail = len(whole_file) - 600  # where the directory is, which zipfile trusts most
    for _ in range(600):
        content = bytearray(whole_file)
        for _ in range(random.integers(1, 4)):
            at = random.integers(tail if random.random() < 0.6 else 0, len(content))
            content[at] ^= 1 << random.integers(8)
        path.write_bytes(content)
        loads_or_is_refused(path)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_arrays_of_any_content_load_or_are_refused(whole_arrays_folder, data):
    kinds = st.sampled_from([np.int8, np.int32, np.uint64, np.float16, np.float64, np.bool_])
    arrays = csr()
    for name in data.draw(st.sets(st.sampled_from([*sorted(arrays), "height", "width"]))):
        numbers = st.integers(-3, 40) | st.integers(-(2**63), 2**63 - 1)
        values = np.array(data.draw(st.lists(numbers, max_size=5)), dtype=np.int64)
        with np.errstate(over="ignore"):
            arrays[name] = values.astype(data.draw(kinds))
        if data.draw(st.booleans()) and len(values):
            arrays[name] = arrays[name][0]
    path = whole_arrays_folder / "x.npz"
    np.savez(path, **arrays)
    loads_or_is_refused(path)


@pytest.fixture(scope="module")
def whole_arrays_folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("arrays")


def test_the_same_xray_gives_the_same_bytes(tmp_path):
    for name in ("a.npz", "b.npz"):
        ball_xray()[0].save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
