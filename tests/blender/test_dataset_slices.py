"""`dataset --slices`: Slice3D's training data beside the X-Rays, in its published layout."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import bpy
import numpy as np
import pytest

NAMES = sorted(f"{axis}_{number}.png" for axis in "XYZ" for number in range(1, 5))


@pytest.fixture
def meshes(xray, tmp_path) -> Path:
    """A ball, and a sheet that encloses nothing."""
    folder = tmp_path / "meshes"
    folder.mkdir()
    bpy.ops.mesh.primitive_ico_sphere_add(subdivisions=3)
    bpy.ops.wm.ply_export(filepath=str(folder / "ball.ply"))
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.mesh.primitive_plane_add()
    bpy.ops.wm.ply_export(filepath=str(folder / "sheet.ply"))
    return folder


@pytest.fixture
def command(part):
    return part("operators.command").main


def made(command, meshes, out, *more: str) -> int:
    options = ("--views=3", "--size=48", "--layers=6", "--image=cast", "--image-size=48")
    return command(["dataset", str(meshes), str(out), *options, "--slices", *more])


def test_the_published_layout_lies_beside_the_xrays(command, meshes, tmp_path, part):
    out = tmp_path / "out"
    assert made(command, meshes, out) == 0
    refused = json.loads((out / "refused" / "sheet.json").read_text())
    assert refused["code"] == "encloses_nothing"
    for view in ("000", "001", "002"):
        assert (out / "xrays" / "ball" / f"{view}.npz").is_file()
        picture = out / "00_img_input" / "ball" / f"{view}.png"
        assert picture.read_bytes() == (out / "images" / "ball" / f"{view}.png").read_bytes()
        folder = out / "01_img_slices" / "ball" / view
        assert sorted(path.name for path in folder.iterdir()) == NAMES
    _, azimuths, _, distances, poses, scale, _ = pickle.loads(
        (out / "00_img_input" / "ball" / "meta.pkl").read_bytes()
    )
    np.testing.assert_allclose(np.degrees(azimuths), [0, 120, 240], atol=1e-9)
    assert distances == [1.2] * 3
    assert np.shape(poses) == (3, 3, 4)
    found = np.load(out / "02_sdfs" / "ball.npy", allow_pickle=False)
    # A ball whose box has a diagonal of one.
    radius = np.linalg.norm(found[:, :3], axis=1)
    np.testing.assert_allclose(radius - found[:, 3], 0.5 / np.sqrt(3), atol=0.01)
    lists = {p.stem: p.read_text().split() for p in (out / "03_splits").iterdir()}
    assert sum(lists[name] == ["ball"] for name in ("train", "val", "test")) == 1
    # The X-Ray is of the object where the slices' cameras see it.
    xray = part("xray_addon.xray").XRay.load(out / "xrays" / "ball" / "000.npz")
    assert xray.hit_depth.min() == pytest.approx(1.2 - scale * 0.5 / np.sqrt(3), abs=0.01)


def test_a_second_run_makes_nothing_anew_and_other_settings_are_refused(command, meshes, tmp_path):
    out = tmp_path / "out"
    made(command, meshes, out)
    before = {path: path.stat().st_mtime_ns for path in (out / "01_img_slices").rglob("*.png")}
    assert len(before) == 36
    made(command, meshes, out)
    assert {p: p.stat().st_mtime_ns for p in (out / "01_img_slices").rglob("*.png")} == before
    assert made(command, meshes, out, "--slice-alignment=axis") == 2
    made(command, meshes, out, "--slice-alignment=axis", "--replace")
    after = {path: path.stat().st_mtime_ns for path in (out / "01_img_slices").rglob("*.png")}
    assert after.keys() == before.keys()
    assert after != before


def test_cycles_can_draw_them(command, meshes, tmp_path):
    (meshes / "sheet.ply").unlink()
    out = tmp_path / "out"
    options = ("--views=1", "--slice-shading=cycles", "--samples=2")
    assert made(command, meshes, out, *options) == 0
    assert len(list((out / "01_img_slices" / "ball" / "000").iterdir())) == 12


def test_the_cameras_of_the_slices_are_shown_where_they_look(part, cube, surface_of):
    """Whatever cameras the dataset has without slices."""
    cube.location, cube.scale = (5, 0, 1), (1, 2, 1)
    settings = part("xray_addon.settings").DatasetSettings(views=3, slices=True, cameras="scene")
    views = part("operators.dataset.capture").slice_views(settings, "Cube")
    matrix = views.placed(surface_of(cube))
    shown = part("operators.dataset.ops").object_cameras(cube, settings)
    for here, there in zip(shown, views.cameras, strict=True):
        seen = matrix @ [*here.position, 1.0]
        np.testing.assert_allclose(seen[:3], there.position, atol=1e-6)
        np.testing.assert_allclose(here.camera_to_world[:3, :3], there.camera_to_world[:3, :3])


def test_slices_need_an_image(command, meshes, tmp_path):
    assert made(command, meshes, tmp_path / "out", "--image=none") == 2


def test_what_slice3d_places_does_not_count(part):
    settings = part("xray_addon.settings").DatasetSettings
    sliced = settings(slices=True)
    assert not sliced.is_used("cameras")
    assert not sliced.is_used("normalize")
    assert sliced.is_used("views")
    assert sliced.is_used("slice_shading")
    assert not settings().is_used("slice_shading")
    rendered = settings(slices=True, image="cast", slice_shading="cycles")
    assert rendered.is_used("samples")
    assert not settings(slices=True, image="cast").is_used("samples")
    recipe = part("xray_addon.dataset.recipe").Recipe
    assert recipe.of(sliced) == recipe.of(settings(slices=True, cameras="ring", elevation=3.0))
    assert recipe.of(rendered) != recipe.of(replace(rendered, samples=2))
    assert recipe.of(settings()) != recipe.of(sliced)
