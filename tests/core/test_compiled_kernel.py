"""The compiled caster finds the hits of the array one, and is never in the way where it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_addon import Camera, Material, Surface, XRay, XRayError, cast, casting
from xray_addon.casting import array_kernel
from xray_addon.pictures.shading import Lights, shade_surface
from xray_addon.surface import INTERPOLATIONS, WRAPS

numba = pytest.importorskip("numba")
from xray_addon.casting import compiled_faces, compiled_kernel  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


def assert_the_same(ours: XRay, theirs: XRay) -> None:
    assert ours.dropped == theirs.dropped
    np.testing.assert_array_equal(ours.index, theirs.index)
    np.testing.assert_array_equal(ours.hit_face, theirs.hit_face)
    np.testing.assert_array_equal(ours.hit_depth, theirs.hit_depth)
    np.testing.assert_array_equal(ours.hit_normal, theirs.hit_normal)
    np.testing.assert_array_equal(ours.hit_color, theirs.hit_color)


def both(surface: Surface, camera: Camera, layers: int) -> XRay:
    """The array caster's X-Ray, once the compiled one's is known to be the same."""
    theirs = cast(surface, camera, layers, backend="numpy", faces=True)
    assert_the_same(cast(surface, camera, layers, backend="numba", faces=True), theirs)
    return theirs


@st.composite
def surfaces(draw) -> Surface:
    """Triangles with few distinct corners: many share edges and vertices, many have no area."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    corner = st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 3.0, np.nan, np.inf, 1e200])
    vertices = np.array(
        draw(st.lists(st.tuples(corner, corner, corner), min_size=1, max_size=12)), dtype=float
    )
    if draw(st.booleans()):
        vertices = vertices + random.normal(size=vertices.shape) * 0.1
    count = draw(st.integers(0, 30))
    faces = random.integers(len(vertices), size=(count, 3))
    kind = draw(st.sampled_from([np.float32, np.float64]))
    with np.errstate(over="ignore"):
        vertices = vertices.astype(draw(st.sampled_from([np.float32, np.float64])))
    attributes: dict[str, np.ndarray] = {}
    if draw(st.booleans()):
        attributes["corner_normals"] = random.normal(size=(count, 3, 3)).astype(kind)
    if draw(st.booleans()):
        attributes["corner_colors"] = random.random((count, 3, 3)).astype(kind)
    if draw(st.booleans()):
        uvs = random.normal(size=(count, 3, 2)) * draw(st.sampled_from([0.5, 3.0, 1e20]))
        attributes["corner_uvs"] = uvs.astype(kind)
    materials = [
        Material(
            draw(st.sampled_from([(1.0, 1.0, 1.0), (0.2, 0.9, 0.5)])),
            random.integers(0, 256, (random.integers(1, 5), 3, channels), dtype=np.uint8),
            draw(st.sampled_from(WRAPS)),
            draw(st.sampled_from(INTERPOLATIONS)),
            draw(st.sampled_from([0.0, 0.5, 1.0])),
        )
        for channels in draw(st.lists(st.sampled_from([3, 4]), max_size=3))
    ]
    if materials:
        attributes["face_material"] = random.integers(len(materials), size=count)
    faces = faces.astype(draw(st.sampled_from([np.int16, np.int32, np.int64])))
    return Surface(vertices, faces, materials=materials, **attributes)


@st.composite
def cameras(draw) -> Camera:
    """Outside, inside and among the triangles, often exactly in line with their corners."""
    place = st.sampled_from([-3.0, -1.0, 0.0, 0.25, 2.0])
    eye = np.array(draw(st.tuples(place, place, place)))
    target = eye + draw(st.sampled_from([(0, 1, 0), (0, -1, 0.5), (1, 0.3, 0), (0, 0, -1)]))
    camera = Camera.look_at(eye, target, draw(st.sampled_from([0.3, np.pi / 2, 2.8])), 16, 12)
    return replace(
        camera,
        pixel_offset=draw(st.sampled_from([0.0, 0.5])),
        cx=draw(st.sampled_from([8.0, 0.0, 13.7, -40.0])),
        cy=draw(st.sampled_from([6.0, 12.0, 3.1])),
    )


@given(surfaces(), cameras(), st.sampled_from([1, 2, 16]))
@settings(max_examples=300, deadline=None)
def test_both_kernels_find_the_same_hits(surface, camera, layers):
    both(surface, camera, layers)


@given(surfaces(), cameras(), st.sampled_from([1, 2, 3]), st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_both_kernels_give_the_same_picture(surface, camera, samples, seed):
    lights = Lights.random(camera, np.random.default_rng(seed))
    ours, theirs = (
        shade_surface(surface, camera, lights, samples=samples, backend=backend)
        for backend in ("numba", "numpy")
    )
    np.testing.assert_array_equal(ours, theirs)


def soup(count: int = 300, size: float = 1.0) -> Surface:
    random = np.random.default_rng(3)
    corners = random.normal(size=(count, 1, 3)) * 0.3 + random.normal(size=(count, 3, 3)) * size
    return Surface(corners.reshape(-1, 3), np.arange(3 * count).reshape(-1, 3))


def test_the_same_hits_are_left_out_where_there_are_too_many():
    xray = both(soup(), Camera.look_at((0, -6, 0), width=24, height=24), 4)
    assert xray.dropped > len(xray.index)


def test_coincident_faces_keep_their_order():
    one = np.array([[-1.0, 0, -1], [1, 0, -1], [0, 0.3, 1]])
    surface = Surface(np.tile(one, (5, 1)), np.arange(15).reshape(5, 3))
    xray = both(surface, Camera.look_at((0, -3, 0), width=9, height=9), 3)
    middle = 4 * 9 + 4
    assert xray.hit_face[xray.index % 81 == middle].tolist() == [0, 1, 2]


def test_surfaces_a_hair_apart_are_in_order():
    # Farther apart than doubles' rounding, nearer than the steps that the array caster sorts by.
    behind = np.linspace(1e-12, 0, 100)
    sheets = np.array([[[-0.1, y, -0.1], [0.1, y, -0.1], [0, y, 0.1]] for y in behind])
    surface = Surface(sheets.reshape(-1, 3), np.arange(300).reshape(-1, 3))
    camera = Camera.look_at((0, -3, 0), width=256, height=256)
    xray = both(surface, camera, 100)
    middle = 128 * 256 + 128
    assert xray.hit_face[xray.index % 256**2 == middle].tolist() == list(range(99, -1, -1))


@pytest.mark.parametrize(("kernel", "name"), [(array_kernel, "numpy"), (compiled_kernel, "numba")])
def test_work_in_small_parts_gives_the_same(monkeypatch, kernel, name):
    surface, camera = soup(60), Camera.look_at((0, -6, 0), width=24, height=24)
    whole = cast(surface, camera, 4, backend=name, faces=True)
    monkeypatch.setattr(casting, "HITS_AT_ONCE", 100)
    for parts in ("FACES_AT_ONCE", "CELLS_AT_ONCE", "HITS_AT_ONCE"):
        if hasattr(kernel, parts):
            monkeypatch.setattr(kernel, parts, 50)
    assert len(list(kernel.hits(casting.Scene.of(surface, camera, kernel.moved)))) > 3
    assert_the_same(cast(surface, camera, 4, backend=name, faces=True), whole)


def test_more_faces_than_are_looked_at_at_once():
    both(soup(compiled_faces.FACES_AT_ONCE * 2 + 5, 0.02), Camera.look_at((0, -3, 0)), 16)


def run(code: str, cwd: Path = ROOT, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


CAST = """
surface = Surface([[-1.0, 0, -1], [1, 0, -1], [0, 0, 1]], [[0, 1, 2]])
camera = Camera.look_at((0, -3, 0), width=9, height=9)
assert len(cast(surface, camera, 2).index) > 5
"""


def test_importing_the_core_does_not_import_numba():
    run("import sys, xray_addon; assert 'numba' not in sys.modules")


def test_without_numba_the_array_caster_works_and_asking_for_numba_is_an_error():
    run(
        "import sys; sys.modules['numba'] = None\n"
        "from xray_addon import Camera, Surface, XRayError, cast\n"
        + CAST
        + "try:\n    cast(surface, camera, backend='numba')\n"
        "except XRayError as error:\n    assert error.code == 'no_numba', error\n"
        "else:\n    raise AssertionError\n"
    )


def test_auto_takes_numba_where_it_is_installed(monkeypatch):
    assert casting._kernel("auto") is compiled_kernel
    monkeypatch.setattr(casting, "_numba_kernel", lambda: "no such library")
    assert casting._kernel("auto") is array_kernel
    with pytest.raises(XRayError, match="no such library"):
        casting._kernel("numba")


COPY = """
import shutil, sys
from pathlib import Path
shutil.copytree({source!r}, {to!r}, ignore=shutil.ignore_patterns("__pycache__"))
"""


@pytest.fixture
def copied(tmp_path) -> Path:
    """A folder with a copy of the core, nothing of it compiled."""
    run(COPY.format(source=str(ROOT / "xray_addon"), to=str(tmp_path / "xray_addon")))
    return tmp_path


# Of the kernels only the cheapest to compile.
PROJECT = """
import numpy as np
from {package}.casting.compiled_faces import project
points, regular = project(np.array([[0.0, 0, -1]]), 1.0, 0.0, 0.0, 0.0)
assert regular and points.tolist() == [[0, 0]]
"""


def test_a_folder_that_cannot_be_written_to_is_no_error(copied):
    (copied / "xray_addon" / "casting" / "__pycache__").write_text("no folder can be made here")
    (copied / "home").write_text("nor here")
    nowhere = {"HOME": str(copied / "home"), "XDG_CACHE_HOME": str(copied / "home")}
    run(PROJECT.format(package="xray_addon"), copied, NUMBA_CACHE_DIR="", **nowhere)


def test_a_cache_that_is_damaged_or_of_another_package_name_is_no_error(copied):
    run(PROJECT.format(package="xray_addon"), copied)
    cached = sorted(
        (copied / "xray_addon" / "casting" / "__pycache__").glob("compiled_faces.project*")
    )
    assert len(cached) == 2
    # The same files under another name, as Blender has them beside the runtime.
    (copied / "extension").mkdir()
    (copied / "extension" / "__init__.py").touch()
    (copied / "xray_addon").rename(copied / "extension" / "xray_addon")
    run(PROJECT.format(package="extension.xray_addon"), copied)
    for path in (copied / "extension" / "xray_addon" / "casting" / "__pycache__").glob(
        "*.project*"
    ):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    run(PROJECT.format(package="extension.xray_addon"), copied)
