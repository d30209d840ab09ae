"""Slices of objects and X-Rays in Blender, and meshes from twelve pictures."""

from __future__ import annotations

import math
from pathlib import Path

import bpy
import numpy as np
import pytest

NAMES = [f"{axis}_{number}" for axis in "XYZ" for number in range(1, 5)]


@pytest.fixture
def slicing(part):
    return part("operators.slices.slicing")


@pytest.fixture
def settings(part):
    return part("xray_addon.settings.slices").SliceSettings


@pytest.fixture
def torus(xray):
    bpy.ops.mesh.primitive_torus_add(major_radius=2, minor_radius=0.6, location=(5, 5, 5))
    return bpy.context.object


def read(path: Path) -> np.ndarray:
    image = bpy.data.images.load(str(path))
    width, height = image.size
    pixels = np.empty(width * height * 4, np.float32)
    image.pixels.foreach_get(pixels)
    bpy.data.images.remove(image)
    return pixels.reshape(height, width, 4)[::-1]


def test_the_operator_shows_and_writes_the_slices_of_the_selection(torus, tmp_path):
    assert bpy.ops.xray.slices(directory=str(tmp_path), size=64) == {"FINISHED"}
    assert sorted(path.stem for path in tmp_path.iterdir()) == NAMES
    assert read(tmp_path / "Y_2.png").shape == (64, 64, 4)
    assert read(tmp_path / "Z_1.png")[..., 3].sum() > 10
    sheet = bpy.data.images["X-Ray Slices"]
    assert sheet.size[0] > 4 * 64
    assert torus.location.x == 5


def test_the_published_view_shows_the_front(torus, slicing, settings, part):
    bpy.ops.mesh.primitive_cube_add(size=1, location=(5, -5, 5))
    cube = bpy.context.object  # in front of the ring
    names = part("xray_addon.slices.slicing").NAMES
    pictures = slicing.slice_objects([torus, cube], settings(size=64, elevation=0))
    near = pictures[names.index("Z_1")][..., 3] > 0
    rows, columns = np.nonzero(near)
    assert 20 < rows.mean() < 44
    assert 20 < columns.mean() < 44
    from_the_right = slicing.slice_objects(
        [torus, cube], settings(size=64, elevation=0, azimuth=90)
    )
    # Seen from +x the cube is on the left.
    left = from_the_right[names.index("X_1")][..., 3] > 0
    assert np.nonzero(left)[1].max() < 32


def test_the_scenes_camera_can_look(torus, slicing, settings, part):
    error = part("xray_addon.errors").XRayError
    with pytest.raises(error) as caught:
        slicing.slice_objects([torus], settings(view="camera"))
    assert caught.value.code == "no_camera"
    bpy.ops.object.camera_add(location=(5, -3, 5), rotation=(math.pi / 2, 0, 0))
    bpy.context.scene.camera = bpy.context.object
    pictures = slicing.slice_objects([torus], settings(view="camera", size=48))
    assert (pictures[..., 3] > 0).any(axis=(1, 2)).sum() == 12


def test_an_imported_xray_can_be_sliced(torus, slicing, settings, part, tmp_path):
    capture = part("xray_addon.settings").CaptureSettings(views=1, layers=8, size=64)
    part("operators.dataset.plain").capture_objects([torus], tmp_path, capture)
    file = tmp_path / "xrays" / "Torus" / "000.npz"
    for form in ("mesh", "layers"):
        assert bpy.ops.xray.import_xray(filepath=str(file), form=form) == {"FINISHED"}
        pictures = slicing.slice_captured(bpy.context.object, settings())
        assert pictures.shape == (12, 64, 64, 4)
        assert (pictures[..., 3] > 0).any(axis=(1, 2)).all()
    assert bpy.ops.xray.slices() == {"FINISHED"}
    bpy.ops.object.mode_set(mode="EDIT")
    assert bpy.ops.xray.slices() == {"FINISHED"}


@pytest.mark.parametrize("aligned", ["camera", "axis"])
def test_cycles_draws_the_same_slices_from_meshes_that_are_cut(torus, slicing, settings, aligned):
    options = {"size": 48, "aligned": aligned, "azimuth": 30.0}
    cast = slicing.slice_objects([torus], settings(**options))
    rendered = slicing.slice_objects([torus], settings(**options, shading="cycles", samples=4))
    differing = np.abs(cast[..., 3].astype(int) - rendered[..., 3]) > 128
    assert differing.mean() < 0.01
    both = (cast[..., 3] == 255) & (rendered[..., 3] == 255)
    # Another light, another curve, the same shapes: bright is bright and dark is dark.
    assert np.corrcoef(cast[both][:, 0], rendered[both][:, 0])[0, 1] > 0.5
    assert not [scene for scene in bpy.data.scenes if "temporary" in scene.name]
    assert not [mesh for mesh in bpy.data.meshes if "temporary" in mesh.name]


def test_twelve_pictures_become_a_mesh(fake_runtime, part, tmp_path):
    for name in NAMES:
        part("xray_addon.files.png").write_png(
            tmp_path / f"{name}.png", np.zeros((8, 8, 3), np.uint8)
        )
    bpy.context.scene.xray.generate.keep_layers = True
    assert bpy.ops.xray.slices_to_mesh(directory=str(tmp_path)) == {"FINISHED"}
    obj = bpy.context.object
    names = (obj, obj.data, obj.data.materials[0])
    assert [each.name for each in names] == [tmp_path.name] * 3
    assert obj["xray_settings"]["branch"] == "slices"
    sheet = next(image for image in bpy.data.images if "slices" in image.name)
    assert sheet.use_fake_user
    assert round(sheet.pixels[0] * 255) == 12  # the stand-in counts the files it was given


def test_the_folder_is_asked_for_each_time(xray):
    operator = bpy.ops.xray.slices_to_mesh.get_rna_type()
    assert operator.properties["directory"].is_skip_save


def test_a_folder_without_slices_is_told(fake_runtime, tmp_path):
    with pytest.raises(RuntimeError, match="holds no slices"):
        bpy.ops.xray.slices_to_mesh(directory=str(tmp_path))


def test_nothing_to_slice_is_told(xray):
    assert not bpy.ops.xray.slices.poll()
    bpy.ops.object.light_add()
    assert not bpy.ops.xray.slices.poll()


def test_the_panel_knows_which_weights_to_fetch(xray, part, tmp_path, monkeypatch):
    service = part("operators.runtime.service")
    part("operators.properties").preferences().generator = "slice3d"
    scene = bpy.context.scene
    own = scene.xray.generate.systems.slice3d
    own.checkpoint = str(tmp_path)
    assert [file.key for file in service.missing_by_hand(scene)] == ["regression"]
    own.branch = "generation"
    assert [file.key for file in service.missing_by_hand(scene)] == ["diffusion", "gt_to_3d"]
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "epoch=000103.ckpt").touch()
    assert [file.key for file in service.missing_by_hand(scene)] == ["gt_to_3d"]


def test_the_panel_says_before_the_press_that_one_needs_weights_of_ones_own(
    xray, part, monkeypatch
):
    panel = part("panels.weights")
    texts = []
    monkeypatch.setattr(panel, "draw_text", lambda _box, _context, text, **_how: texts.append(text))
    own = bpy.context.scene.xray.generate.systems.xray_paper
    for generator, checkpoint, told in (
        ("xray", "", 0),
        ("xray-paper", "", 1),
        ("xray-paper", "/somewhere", 0),
    ):
        part("operators.properties").preferences().generator = generator
        own.checkpoint = checkpoint
        texts.clear()
        panel._draw_own_checkpoint(None, bpy.context)
        assert [("you have trained" in text) for text in texts] == told * [True]


def test_the_panel_says_what_to_fetch_from_where_and_under_which_licence(
    xray, part, tmp_path, monkeypatch
):
    panel, system = part("panels.weights"), part("xray_addon.systems.slice3d")
    part("operators.properties").preferences().generator = "slice3d"
    own = bpy.context.scene.xray.generate.systems.slice3d
    own.branch, own.checkpoint = "generation", str(tmp_path)
    texts, buttons = [], []
    monkeypatch.setattr(panel, "draw_text", lambda _box, _context, text, **_how: texts.append(text))

    class Layout:
        def __getattr__(self, _name):
            return lambda *_args, **_how: Layout()

        def operator(self, _name, **_how):
            buttons.append(type("Properties", (), {})())
            return buttons[-1]

    panel.draw_missing_weights(Layout(), bpy.context)
    told = " ".join(texts)
    for part_of_it in (system.DIFFUSION.name, system.GT_TO_3D.name, str(tmp_path)):
        assert part_of_it in told
    assert "Licence: not stated by the authors." in told
    assert [button.url for button in buttons] == [system.PAGE]
